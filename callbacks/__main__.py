"""The analysis process, as `AnalysisProcess` starts it: ``python -m xrf_sr_plans.callbacks``."""

from xrf_sr_plans.callbacks.worker import main

if __name__ == "__main__":
    main()
