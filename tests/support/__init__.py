"""What the tests of several folders share: documents, simulated beamlines, servers."""
