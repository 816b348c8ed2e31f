"""Motion models: invertible maps between every frame's local volume and one canonical volume."""
