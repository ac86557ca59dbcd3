"""Super-resolution: classical methods, the network, its uncertainty, and which pixels to trust."""
