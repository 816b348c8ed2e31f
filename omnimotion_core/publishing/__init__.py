"""What the plug-ins of ``plugin/`` share, since pyblish executes each of them on its own; needs no torch."""
