"""Many clips: the graph of their stages, run on this machine or written for a farm's engine."""
