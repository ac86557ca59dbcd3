"""Callbacks on documents: the tap on the RunEngine and the analysis chain behind it.

On disk this folder is `callbacks/`, but it can only be imported as `xrf_sr_plans.callbacks`.
"""

if __name__ != "xrf_sr_plans.callbacks":
    raise ImportError(
        "import 'xrf_sr_plans.callbacks', not 'callbacks': this folder is part of xrf_sr_plans "
        "(is the repository root on sys.path, and xrf-sr-plans installed?)"
    )
