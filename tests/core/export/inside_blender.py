"""Run by Blender's Python in a process of its own: what Blender makes of our files, as one JSON line.

Arguments: a frame of the clip, markers.json, an EXR file of motion vectors, a folder for renders.
"""

import json
import os
import sys

import bpy  # type: ignore[import-not-found, unused-ignore]


def seen_frames(clip_file: str, markers_file: str) -> dict[str, list[int]]:
    """Name of each track → clip frames 0..40 at which Blender holds an unmuted marker."""
    with open(markers_file, encoding="utf-8") as file:
        content = json.load(file)
    clip = bpy.data.movieclips.load(clip_file)
    tracks = clip.tracking.objects.new("Dense").tracks
    found = {}
    for entry in content["tracks"]:
        frames = entry["frames"]
        track = tracks.new(name=entry["name"], frame=frames[0])
        for frame in frames[1:]:
            track.markers.insert_frame(frame)
        track.markers.foreach_set("co", entry["co"])
        track.markers.foreach_set("mute", entry["mute"])
        track.weight = entry["weight"]
        held = {frame: track.markers.find_frame(frame, exact=False) for frame in range(41)}
        found[track.name] = [frame for frame, marker in held.items() if not marker.mute]
    return found


def rendered_passes(exr_file: str, folder: str) -> dict[str, list[float]]:
    """Name of each pass → the first three channels at the picture's centre, through the compositor's Image node."""
    scene = bpy.context.scene
    image = bpy.data.images.load(exr_file)
    if bpy.app.version >= (5, 0, 0):
        tree = bpy.data.node_groups.new("Compositing", "CompositorNodeTree")
        scene.compositing_node_group = tree
        tree.interface.new_socket(name="Image", in_out="OUTPUT", socket_type="NodeSocketColor")
        out = tree.nodes.new("NodeGroupOutput")
    else:
        scene.use_nodes = True
        tree = scene.node_tree
        tree.nodes.clear()
        out = tree.nodes.new("CompositorNodeComposite")
    node = tree.nodes.new("CompositorNodeImage")
    node.image = image
    render = scene.render
    render.engine = "CYCLES"
    render.resolution_x, render.resolution_y, render.resolution_percentage = 96, 64, 100
    if bpy.app.version >= (5, 0, 0):
        render.image_settings.media_type = "IMAGE"
    render.image_settings.file_format, render.image_settings.color_depth = "OPEN_EXR", "32"
    scene.view_settings.view_transform = "Raw"
    if scene.camera is None:
        scene.camera = bpy.data.objects.new("Camera", bpy.data.cameras.new("Camera"))
    values = {}
    for socket in [socket for socket in node.outputs if socket.enabled]:
        tree.links.new(socket, out.inputs[0])
        render.filepath = os.path.join(folder, f"{socket.name}.exr")
        bpy.ops.render.render(write_still=True)
        shown = bpy.data.images.load(render.filepath)
        shown.colorspace_settings.name = "Non-Color"
        pixels = list(shown.pixels)
        middle = (32 * 96 + 70) * 4
        values[socket.name] = pixels[middle : middle + 3]
    return values


if __name__ == "__main__":
    clip_file, markers_file, exr_file, folder = sys.argv[-4:]
    answer = {"seen": seen_frames(clip_file, markers_file), "passes": rendered_passes(exr_file, folder)}
    print("ANSWER " + json.dumps(answer), flush=True)
    os._exit(0)  # bpy 4.2 and 4.5 crash or hang in their own ending
