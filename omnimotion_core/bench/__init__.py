"""The project's benchmark: what each stage costs on this machine, and how the costs grow."""
