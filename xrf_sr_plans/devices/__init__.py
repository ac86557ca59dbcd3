"""Devices that plans use: protocols of a beamline, row flyers, the analysis device, a simulator."""
