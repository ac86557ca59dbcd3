"""Entry point of the analysis process, as `AnalysisProcess` starts it."""

from xrf_sr_plans.callbacks.service.worker_entry import main

if __name__ == "__main__":
    main()
