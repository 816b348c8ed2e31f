"""Run by Blender in a process of its own: one scenario with the real add-on, answered as one JSON line.

Arguments after ``--``: the scenario's name and a JSON object with its values.
"""

import importlib
import json
import os
import sys
import time
import traceback
from typing import Any, ClassVar

import bpy


def install(zip_path: str) -> str:
    """Install the zip as users do; returns the module's name."""
    if bpy.app.version >= (4, 2, 0):
        bpy.ops.extensions.package_install_files(filepath=zip_path, repo="user_default", enable_on_install=True)
        return "bl_ext.user_default.track_everything"
    bpy.ops.preferences.addon_install(filepath=zip_path)
    bpy.ops.preferences.addon_enable(module="track_everything")
    return "track_everything"


def part(name: str) -> Any:
    """A module of the installed add-on."""
    return importlib.import_module(f"{MODULE}.{name}")


def open_clip(path: str) -> Any:
    clip = bpy.data.movieclips.load(path)
    bpy.context.scene.active_clip = clip
    return clip


def failure(call: Any, *arguments: Any, **given: Any) -> str:
    """What an operator says when it fails."""
    try:
        call(*arguments, **given)
    except RuntimeError as error:
        return str(error).strip()
    return ""


def seen_of(clip: Any, name: str = "Track Everything") -> dict[str, dict[int, list[float]]]:
    """Track → clip frame from its first marker to 60 → position, where Blender holds an unmuted marker."""
    found = {}
    for track in clip.tracking.objects[name].tracks:
        held = {frame: track.markers.find_frame(frame, exact=False) for frame in range(track.markers[0].frame, 61)}
        found[track.name] = {frame: list(marker.co) for frame, marker in held.items() if not marker.mute}
    return found


def be_quick(settings: str) -> None:
    """From now on the core's command is the real one with settings under which it takes seconds."""
    with open(settings, encoding="utf-8") as file:
        quick = json.load(file)
    plain = part("steps").track_step

    def quickly(python: str, order: Any, scratch: Any) -> Any:
        step = plain(python, order, scratch)
        written = json.loads((scratch / "settings.json").read_text(encoding="utf-8"))
        for key, value in quick.items():
            written[key] = {**value, **written.get(key, {})} if isinstance(value, dict) else value
        (scratch / "settings.json").write_text(json.dumps(written), encoding="utf-8")
        return step

    part("operators").track_step = quickly


# --- scenarios


def lives_twice() -> Any:
    """Registered and unregistered again and again; what is left after each."""
    left = []
    operators = ("track_everything", "cancel", "import_run", "track_point", "best_for_solve", "export_vectors",
                 "setup_compositor", "batch", "install_core", "check_core", "by_confidence", "stabilize",
                 "plane_track")  # fmt: skip
    for _ in range(2):
        names = [name for name in operators if not hasattr(bpy.types, f"OMNIMOTION_OT_{name}")]
        bpy.ops.preferences.addon_disable(module=MODULE)
        ours = ("OMNIMOTION_", "TRACKEVERYTHING_", "TrackEverything")
        rest = [name for name in dir(bpy.types) if name.startswith(ours)]
        rest += [name for name in ("track_everything", "track_everything_overlay")
                 if hasattr(bpy.types.Scene, name) or hasattr(bpy.types.WindowManager, name)]  # fmt: skip
        left.append([names, rest])
        bpy.ops.preferences.addon_enable(module=MODULE)
    return left


def tracks_headless(clip: str, output: str, config: dict[str, Any]) -> Any:
    """A clip tracked by the operator, saved and read again."""
    preferences().python = GIVEN["core"]
    be_quick(GIVEN["settings"])
    shown = open_clip(clip)
    done = list(bpy.ops.omnimotion.track_everything(clip=shown.name, output=output, **config))
    path = os.path.join(GIVEN["folder"], "shot.blend")
    bpy.ops.wm.save_as_mainfile(filepath=path)
    bpy.ops.wm.open_mainfile(filepath=path)
    [shown] = bpy.data.movieclips
    tracks = shown.tracking.objects["Track Everything"].tracks
    return {
        "done": done, "seen": seen_of(shown), "weights": {track.name: track.weight for track in tracks},
        "selected": sum(track.select for track in tracks), "noted": shown["track_everything_run"],
        "keyed": {track.name: [m.frame for m in track.markers if m.is_keyed] for track in tracks},
    }  # fmt: skip


def imports(clip: str, run: str, frame_offset: int = 0, frame_start: int = 1) -> Any:
    shown = open_clip(clip)
    shown.frame_offset, shown.frame_start = frame_offset, frame_start
    for _ in range(2):  # the second time in place of the first
        done = list(bpy.ops.omnimotion.import_run(directory=run))
    return {"done": done, "objects": [one.name for one in shown.tracking.objects], "seen": seen_of(shown)}


def writes_many(clip: str, tracks: int, frames: int) -> Any:
    """Seconds of processor time to write that many tracks."""
    content = {"tracks": [
        {"name": f"te{row:05d}", "weight": 0.5, "color": [1, 0, 0], "keyed_frame": 1,
         "frames": list(range(1, frames + 2)), "co": [(row % 100) / 100, 0.5] * (frames + 1),
         "mute": [False] * frames + [True]}
        for row in range(tracks)
    ]}  # fmt: skip
    shown = open_clip(clip)
    steps = part("steps")
    facts = steps.RunFacts(part("steps").Path("/nowhere"), tuple(shown.size), 1001, 1001, frames, True, "shot", {})
    began = time.process_time()
    count = part("markers").import_markers(shown, facts, content)
    return {"seconds": time.process_time() - began, "count": count}


def refuses(clip: str, run: str, other: str) -> Any:
    """What is said where something is wrong."""
    ops = bpy.ops.omnimotion
    answers = {"no clip": failure(ops.track_everything), "no such clip": failure(ops.track_everything, clip="none")}
    shown = open_clip(clip)
    answers["no core"] = failure(ops.track_everything)
    preferences().python = os.path.join(GIVEN["folder"], "no-python")
    answers["no python"] = failure(ops.track_everything)
    preferences().python = GIVEN["core"]
    answers["no run"] = failure(ops.import_run, directory=GIVEN["folder"])
    answers["not tracked"] = failure(ops.export_vectors)
    answers["point"] = failure(ops.track_point, x=0.5, y=0.5)
    answers["mask"] = failure(ops.track_everything, region="MASK_IN", mask="none", output=run + "-x")
    answers["annotation"] = failure(ops.track_everything, region="ANNOTATION_IN", output=run + "-x")
    answers["selected"] = failure(ops.track_everything, seed_mode="SELECTED", output=run + "-x")
    answers["frames"] = failure(ops.track_everything, frame_mode="CUSTOM", frame_first=50, frame_last=60)
    answers["folder"] = failure(ops.batch, source="FOLDER", directory=run + "-x")
    smaller = open_clip(other)
    answers["another size"] = failure(ops.import_run, directory=run, clip=smaller.name)
    shown.filepath = shown.filepath + ".gone"
    answers["gone"] = failure(ops.track_everything, clip=shown.name)
    answers["orphans"] = ", ".join(os.listdir(GIVEN["folder"]))
    return answers


def solves(clip: str, run: str) -> Any:
    """The camera solved from the best tracks."""
    shown = open_clip(clip)
    bpy.ops.omnimotion.import_run(directory=run)
    shown.tracking.camera.focal_length_pixels = GIVEN["focal_px"]
    counts = []
    for _ in range(2):
        bpy.ops.omnimotion.best_for_solve(count=40)
        counts.append(len(shown.tracking.objects["Camera"].tracks))
    camera = shown.tracking.objects["Camera"]
    with part("footage").clip_editor(bpy.context, shown):
        bpy.ops.clip.solve_camera()
    solved = shown.tracking.reconstruction
    error = solved.average_error
    bpy.ops.omnimotion.best_for_solve(count=40, solve=True)
    cleaned, left = solved.average_error, [track.name for track in camera.tracks]
    bpy.ops.omnimotion.stabilize()
    return {"counts": counts, "error": error, "valid": solved.is_valid, "cleaned": cleaned, "left": left,
            "keyframes": [camera.keyframe_a, camera.keyframe_b],
            "stabilized": len(shown.tracking.stabilization.tracks)}  # fmt: skip


def filters(clip: str, run: str) -> Any:
    shown = open_clip(clip)
    bpy.ops.omnimotion.import_run(directory=run)
    tracks = shown.tracking.objects["Track Everything"].tracks
    below = sorted(track.weight for track in tracks)[len(tracks) // 2]
    answers: dict[str, Any] = {"below": sum(track.weight < below for track in tracks)}
    for action in ("SELECT", "HIDE", "SHOW"):
        bpy.ops.omnimotion.by_confidence(action=action, below=below)
        answers[action] = [sum(track.select for track in tracks), sum(track.hide for track in tracks)]
    return answers


def follows_a_point(clip: str, run: str, x: float, y: float, frame: int) -> Any:
    preferences().python = GIVEN["core"]
    shown = open_clip(clip)
    bpy.ops.omnimotion.import_run(directory=run)
    shown.frame_start = 101
    before = len(shown.tracking.objects["Track Everything"].tracks)
    said = [failure(bpy.ops.omnimotion.track_point, x=x, y=y, frame=frame + 100),
            failure(bpy.ops.omnimotion.track_point, x=x, y=y, frame=99),
            failure(bpy.ops.omnimotion.track_point, x=1.5, y=y, frame=frame + 100)]  # fmt: skip
    seen = seen_of(shown)
    return {"said": said, "before": before, "after": len(seen), "seen": seen.get("Point")}


def shows_a_composite(clip: str, run: str, setup: str, frames: list[int]) -> Any:
    """The composite of a setup, rendered; for each frame the file."""
    shown = open_clip(clip)
    shown.frame_start = 11
    part("markers").remember_run(shown, part("steps").Path(run))
    scene = bpy.context.scene
    for _ in range(2):  # the second time in place of the first
        done = list(bpy.ops.omnimotion.setup_compositor(setup=setup))
    tree, output = part("compositing").compositor(scene)
    [shown_by] = [link.from_node for link in tree.links if link.to_socket == output.inputs[0]]
    render = scene.render
    render.engine = "CYCLES"
    scene.cycles.samples = 1
    scene.cycles.use_denoising = False  # some builds cannot
    if hasattr(render, "compositor_device"):
        render.compositor_device = "CPU"
    if bpy.app.version >= (5, 0, 0):
        render.image_settings.media_type = "IMAGE"
    render.image_settings.file_format, render.image_settings.color_depth = "OPEN_EXR", "32"
    scene.view_settings.view_transform = "Raw" if bpy.app.version < (5, 0, 0) else "Standard"
    if scene.camera is None:
        scene.camera = bpy.data.objects.new("Camera", bpy.data.cameras.new("Camera"))
    files = []
    for frame in frames:
        scene.frame_set(frame)
        render.filepath = os.path.join(GIVEN["folder"], f"{setup}-{frame}.exr")
        bpy.ops.render.render(write_still=True)
        files.append(render.filepath)
    ours = [node.bl_idname for node in tree.nodes if node.get("track_everything")]
    return {"done": done, "files": files, "nodes": sorted(ours), "shown": bool(shown_by.get("track_everything")),
            "size": [render.resolution_x, render.resolution_y]}  # fmt: skip


def keeps_the_users_output(clip: str, run: str) -> Any:
    """What the output shows before and after, where it shows something of the user's own."""
    shown = open_clip(clip)
    part("markers").remember_run(shown, part("steps").Path(run))
    tree, output = part("compositing").compositor(bpy.context.scene)
    mine = tree.nodes.new("CompositorNodeBlur")
    tree.links.new(mine.outputs[0], output.inputs[0])
    found = []
    for _ in range(2):
        found.append(next(link.from_node.bl_idname for link in tree.links if link.to_socket == output.inputs[0]))
        bpy.ops.omnimotion.setup_compositor()
    return found


def has_no_passes(clip: str, run: str) -> Any:
    shown = open_clip(clip)
    part("markers").remember_run(shown, part("steps").Path(run))
    return failure(bpy.ops.omnimotion.setup_compositor)


def seeds_and_regions(clip: str, output: str, config: dict[str, Any]) -> Any:
    """Features and selected tracks as seeds, a mask as region."""
    preferences().python = GIVEN["core"]
    shown = open_clip(clip)
    answers: dict[str, Any] = {"mattes": {}}
    mask = bpy.data.masks.new("Left")
    layer = mask.layers.new()
    spline = layer.splines.new()
    width, height = shown.size
    corners = ((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0))  # the left half, in fractions of the frame
    spline.points.add(len(corners) - len(spline.points))
    for point, (x, y) in zip(spline.points, corners, strict=True):
        place = x, (y - 0.5) * height / width + 0.5
        point.handle_left_type = point.handle_right_type = "VECTOR"
        point.co = point.handle_left = point.handle_right = place
    spline.use_cyclic = True
    region = part("region")
    footage = part("footage").examine(shown)
    folder = part("steps").Path(GIVEN["folder"]) / "matte"
    for name in ("MASK_IN", "MASK_OUT"):
        path = region.write_region(shown, footage, (1, 10), name, "Left", folder / name)
        answers["mattes"][name] = path
    # features become tracks of their own, then some of these are chosen
    features = part("seeds").detected_features(shown, footage, (1, 10), 40)
    answers["features"] = [list(seed[1:]) for seed in features]
    answers["objects"] = [one.name for one in shown.tracking.objects]
    camera = shown.tracking.objects["Camera"]
    shown.tracking.objects.active = camera
    for name, frame, x, y in (("mine", 3, 0.3, 0.4), ("yours", 8, 0.2, 0.7)):
        track = camera.tracks.new(name=name, frame=frame)
        track.markers[0].co = (x, y)
        track.select = True
    unselected = camera.tracks.new(name="not me", frame=1)
    unselected.select = False
    be_quick(config["file"])
    bpy.ops.omnimotion.track_everything(seed_mode="SELECTED", region="MASK_IN", mask="Left", output=output,
                                        frame_mode="CUSTOM", frame_first=2, frame_last=9, device="cpu")  # fmt: skip
    answers["seen"] = seen_of(shown)
    return answers


def overlay(clip: str, run: str, frame: int) -> Any:
    """What the overlay would draw."""
    shown = open_clip(clip)
    bpy.ops.omnimotion.import_run(directory=run)
    module = part("overlay")
    points = module.points_of(part("markers").run_of(shown))
    answers = {}
    for color_by in ("MOTION", "CONFIDENCE", "DEPTH"):
        spots, colors, lines, line_colors = points.geometry(frame - 1, 3, 0.0, color_by)
        answers[color_by] = [spots.tolist(), colors.tolist(), lines.tolist(), line_colors.tolist()]
    answers["index"] = module.frame_index(part("footage").examine(shown), points.run, frame)
    return answers


def previews(clip: str, run: str, frame: int) -> Any:
    """What is drawn of a run's markers while it is fitted."""
    open_clip(clip)
    module, running = part("overlay"), part("running")
    job = part("job").Job("shot", [])
    reference = part("footage").ClipReference.of(bpy.data.movieclips[0])
    task = running.Task("shot", lambda: job, lambda job: "", reference)
    running._runner = running.Runner([task])
    running._runner.job = job
    shown = bpy.data.movieclips[0]
    answers: dict[str, Any] = {"before": module.preview_of(shown) is None}
    path = os.path.join(run, "preview.json")
    job.artifacts["preview_markers"] = path
    points = module.preview_of(shown)
    rows, frames = (axis.tolist() for axis in points.visible.nonzero())
    answers["seen"] = [list(zip(rows, frames, strict=True)), points.places.tolist()]
    answers["spots"] = points.geometry(frame - 1, 3, 0.0, "MOTION")[0].tolist()
    answers["other clip"] = module.preview_of(bpy.data.movieclips.load(GIVEN["other"])) is None
    os.remove(path)
    answers["kept"] = module.preview_of(shown) is points
    running._runner.job = None
    answers["after"] = module.preview_of(shown) is None
    running._runner = None
    return answers


def planes(clip: str, run: str, corners: list[float], frame: int) -> Any:
    """Plane tracks of a run's tracks: around given corners, the selected tracks, the best; and what is refused."""
    shown = open_clip(clip)
    shown.frame_start = 11
    bpy.ops.omnimotion.import_run(directory=run)
    ours = shown.tracking.objects["Track Everything"]
    make, at = bpy.ops.omnimotion.plane_track, {"frame": frame + 10}
    answers: dict[str, Any] = {}
    for name, given in (("corners", {"corners": corners}), ("best", {}), ("selected", {})):
        for track in ours.tracks:
            track.select = name == "selected" and int(track.name[2:]) in GIVEN["selected"]
        make(**given, **at)
        plane = ours.plane_tracks.active
        answers[name] = {
            "tracks": [track.name for track in ours.tracks if track.select],
            "corners": {one.frame: [list(corner) for corner in one.corners] for one in plane.markers if not one.mute},
        }  # fmt: skip
    answers["planes"] = len(ours.plane_tracks)
    left, top = 0.0, 1.0
    answers["crossed"] = failure(make, corners=[0.1, 0.1, 0.9, 0.9, 0.9, 0.1, 0.1, 0.9], **at)
    answers["empty"] = failure(make, corners=[left, top - 0.01, 0.01, top - 0.01, 0.01, top, left, top], **at)
    answers["beyond"] = failure(make, frame=99)
    return answers


def batch(shots: str, config: dict[str, Any]) -> Any:
    """A folder of clips, one of which cannot be tracked."""
    preferences().python = GIVEN["core"]
    be_quick(GIVEN["settings"])
    scene = bpy.context.scene.track_everything
    for name, value in config.items():
        setattr(scene, name, value)
    bpy.ops.omnimotion.batch(source="FOLDER", directory=shots)
    result = bpy.context.window_manager.track_everything.result
    objects = {clip.name: [one.name for one in clip.tracking.objects] for clip in bpy.data.movieclips}
    return {"result": result, "tracks": objects}


def installs(source: str) -> Any:
    """The core installed from disk and checked, as its buttons do."""
    chosen = preferences()
    chosen.source, chosen.source_path, chosen.build = "DISK", source, "CUDA"
    missing = part("preferences").core_state(bpy.context).kind
    done = list(bpy.ops.omnimotion.install_core())
    checked = list(bpy.ops.omnimotion.check_core())
    state = part("preferences").core_state(bpy.context)
    chosen.source = "PYPI"
    allowed = bpy.ops.omnimotion.install_core.poll()
    chosen.source, chosen.source_path = "DISK", source + ".none"
    return {"missing": missing, "done": done, "checked": checked, "state": [state.kind, state.text, state.python],
            "allowed": allowed, "online": getattr(bpy.app, "online_access", True),
            "none": failure(bpy.ops.omnimotion.install_core)}  # fmt: skip


def commands(core: str, clip: str) -> Any:
    """The command of ``blender --command``, called as Blender calls it."""
    module = part("command")
    return {
        "bad option": module.run(["--nonsense"]), "no clip": module.run(["--clip", "none", "--python", core]),
        "no footage": module.run(["--footage", clip + ".none", "--python", core]),
        "known": module._handle is not None, "new": bpy.app.version >= (4, 2, 0),
    }  # fmt: skip


def draws_panels(clip: str, run: str) -> Any:
    """Every panel against a layout that checks what it is given."""
    shown = open_clip(clip)
    bpy.ops.omnimotion.import_run(directory=run)
    panel, drawn = part("panel"), {}
    status = bpy.context.window_manager.track_everything
    with part("footage").clip_editor(bpy.context, shown):
        for running in (False, True):
            status.running, status.result, status.failed, status.warnings = running, "a result", True, "one\ntwo"
            for kind in panel._CLASSES:
                for region, mode in (("FRAME", "CLIP"), ("MASK_IN", "CUSTOM")):
                    bpy.context.scene.track_everything.region = region
                    bpy.context.scene.track_everything.frame_mode = mode
                    assert kind.poll(bpy.context)
                    drawn[f"{kind.__name__} {running} {region}"] = draw(kind)
        drawn["preferences"] = draw(part("preferences").TrackEverythingPreferences, preferences())
    return drawn


def draw(kind: Any, own: Any = None) -> list[str]:
    layout = Layout()
    target = Drawn(own, layout)
    if hasattr(kind, "draw_header"):
        kind.draw_header(target, bpy.context)
    kind.draw(target, bpy.context)
    return layout.said


class Drawn:
    """A panel, or preferences, with a layout of ours."""

    def __init__(self, own: Any, layout: "Layout") -> None:
        self.own, self.layout = own, layout

    def __getattr__(self, name: str) -> Any:
        return getattr(self.own, name)


class Layout:
    """Records what is drawn; an icon, property, operator or function that this Blender lacks raises."""

    functions = bpy.types.UILayout.bl_rna.functions
    icons: ClassVar = {item.identifier for item in functions["label"].parameters["icon"].enum_items}

    def __init__(self, said: "list[str] | None" = None) -> None:
        self.said: list[str] = [] if said is None else said

    def __getattr__(self, name: str) -> Any:
        if name not in self.functions.keys() and name not in ("progress",):  # noqa: SIM118
            raise AttributeError(name)
        if name == "progress" and bpy.app.version < (4, 0, 0):
            raise AttributeError(name)
        known = self.functions[name].parameters.keys()

        def call(*arguments: Any, **given: Any) -> Any:
            for key in given:
                assert key in known, f"{name} has no {key}"
            assert given.get("icon", "NONE") in self.icons, given["icon"]
            if name in ("prop", "prop_search"):
                owner = arguments[0]
                owner = owner.own if isinstance(owner, Drawn) else owner
                assert arguments[1] in owner.bl_rna.properties.keys(), arguments[1]  # noqa: SIM118
                self.said.append(f"prop {arguments[1]}")
            elif name == "operator":
                room, operator = arguments[0].split(".")
                kind = getattr(getattr(bpy.ops, room), operator).get_rna_type()
                self.said.append(f"operator {arguments[0]}")
                return Properties(kind)
            elif name in ("row", "column", "box", "split"):
                return Layout(self.said)
            else:
                self.said.append(f"{name} {given.get('text', '')}")
            return None

        return call


class Properties:
    """An operator's properties; one that it lacks raises."""

    kind: Any

    def __init__(self, kind: Any) -> None:
        object.__setattr__(self, "kind", kind)

    def __setattr__(self, name: str, value: Any) -> None:
        assert name in self.kind.properties.keys(), name  # noqa: SIM118


def preferences() -> Any:
    return bpy.context.preferences.addons[MODULE].preferences


def main() -> None:
    global GIVEN, MODULE
    scenario, GIVEN = sys.argv[-2], json.loads(sys.argv[-1])
    MODULE = install(GIVEN["zip"])
    names = globals()[scenario].__code__.co_varnames[: globals()[scenario].__code__.co_argcount]
    answer = globals()[scenario](**{name: GIVEN[name] for name in names if name in GIVEN})
    print("ANSWER " + json.dumps(answer), flush=True)


GIVEN: dict[str, Any] = {}
MODULE = ""

if __name__ == "__main__":
    try:
        main()
    except BaseException:  # noqa: BLE001 - whatever it is, this process ends here
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # bpy 4.2 and 4.5 crash or hang in their own ending
