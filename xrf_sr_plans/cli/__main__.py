"""The command line as ``python -m xrf_sr_plans.cli``."""

from xrf_sr_plans.cli.program import main

if __name__ == "__main__":
    main()
