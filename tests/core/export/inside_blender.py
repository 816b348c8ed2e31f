"""Run by Blender's Python in a process of its own: what Blender makes of our files, as one JSON line.

Arguments: a frame of the clip, markers.json, an EXR file of motion vectors, an STMap, a picture for it, a folder for
renders.
"""

import json
import os
import sys
from typing import Any

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
    tree, out = compositor()
    node = tree.nodes.new("CompositorNodeImage")
    node.image = bpy.data.images.load(exr_file)
    middle = (32 * 96 + 70) * 4
    values = {}
    for socket in [socket for socket in node.outputs if socket.enabled]:
        tree.links.new(socket, out.inputs[0])
        values[socket.name] = rendered(os.path.join(folder, f"{socket.name}.exr"))[middle : middle + 3]
    return values


def warped(stmap_file: str, picture_file: str, folder: str) -> list[float]:
    """The whole picture (RGBA, from the bottom) through Map UV, which wants the STMap's alpha as its third channel."""
    tree, out = compositor()
    nodes = {}
    for name, kind in (("stmap", "Image"), ("picture", "Image"), ("apart", "SeparateColor"), ("joined", "CombineColor"),
                       ("warp", "MapUV")):  # fmt: skip
        nodes[name] = tree.nodes.new(f"CompositorNode{kind}")
    for name, file in (("stmap", stmap_file), ("picture", picture_file)):
        nodes[name].image = bpy.data.images.load(file)
        nodes[name].image.colorspace_settings.name = "Non-Color"
    tree.links.new(nodes["stmap"].outputs["Combined"], nodes["apart"].inputs[0])
    for output, target in ((0, 0), (1, 1), (3, 2)):  # red, green, alpha → red, green, blue
        tree.links.new(nodes["apart"].outputs[output], nodes["joined"].inputs[target])
    tree.links.new(nodes["joined"].outputs[0], nodes["warp"].inputs["UV"])
    tree.links.new(nodes["picture"].outputs[0], nodes["warp"].inputs["Image"])
    tree.links.new(nodes["warp"].outputs[0], out.inputs[0])
    return rendered(os.path.join(folder, "warped.exr"))


def compositor() -> tuple[Any, Any]:
    """An empty node tree and its output node."""
    scene = bpy.context.scene
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
    return tree, out


def rendered(path: str) -> list[float]:
    """The compositor's picture, 96x64, RGBA from the bottom, unchanged by color management."""
    scene = bpy.context.scene
    render = scene.render
    render.engine = "CYCLES"
    render.resolution_x, render.resolution_y, render.resolution_percentage = 96, 64, 100
    if bpy.app.version >= (5, 0, 0):
        render.image_settings.media_type = "IMAGE"
    render.image_settings.file_format, render.image_settings.color_depth = "OPEN_EXR", "32"
    scene.view_settings.view_transform = "Raw"
    if scene.camera is None:
        scene.camera = bpy.data.objects.new("Camera", bpy.data.cameras.new("Camera"))
    render.filepath = path
    bpy.ops.render.render(write_still=True)
    shown = bpy.data.images.load(render.filepath)
    shown.colorspace_settings.name = "Non-Color"
    return list(shown.pixels)


if __name__ == "__main__":
    clip_file, markers_file, exr_file, stmap_file, picture_file, folder = sys.argv[-6:]
    answer = {"seen": seen_frames(clip_file, markers_file), "passes": rendered_passes(exr_file, folder),
              "warped": warped(stmap_file, picture_file, folder)}
    print("ANSWER " + json.dumps(answer), flush=True)
    os._exit(0)  # bpy 4.2 and 4.5 crash or hang in their own ending
