"""Elemental maps and their geometry, the assembly of row documents to maps, and file formats."""
