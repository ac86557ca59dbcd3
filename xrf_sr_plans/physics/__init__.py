"""The forward model of a fly-scanned microprobe, and the resampling operators that all share."""
