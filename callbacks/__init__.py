"""Document routers: the tap, the analysis chain, and the process it runs in.

On disk this folder is `callbacks/`; it is imported as `xrf_sr_plans.callbacks` only.
"""

if __name__ != "xrf_sr_plans.callbacks":
    raise ImportError(
        "import 'xrf_sr_plans.callbacks', not 'callbacks': this folder is part of xrf_sr_plans "
        "(is the repository root on sys.path, and xrf-sr-plans installed?)"
    )
