"""Super-resolution: the network, its error bars, the mask of trusted pixels, classical methods."""
