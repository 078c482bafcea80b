"""One clip through every door: the loader, arrays, files, embeddings, policies and exports give the same latents."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import jepa
from jepa.agents.policy import Policy
from jepa.cli import main
from jepa.config import UserError, from_dict
from jepa.encoders.video_vit import VideoViT
from jepa.models import checkpoint, hub
from jepa.models.build import build_encoder
from jepa.models.export import export
from jepa.models.model import imported
from jepa.predictors.mlp import MLPPredictor
from jepa.world_model import LatentSpec, LatentWorldModel, Preprocessing
from jepa_data.config import StreamConfig
from jepa_data.decode import get_backend
from jepa_data.pack.pack import Packing, open_corpus, pack
from jepa_data.pack.recipe import Recipe
from jepa_data.preprocessing import as_video
from jepa_data.shards.encode import encode_mp4
from jepa_data.stream.loader import make_loader
from jepa_data.transforms import IMAGENET_MEAN as MEAN
from jepa_data.transforms import IMAGENET_STD as STD
from jepa_probes.embedding.embed import embed
from jepa_probes.embedding.pca import draw_features

SIDE, FPS, FRAMES = 32, 8.0, 8
SHAPES = {"portrait": (96, 64), "landscape": (64, 192), "square": (64, 64), "own size": (32, 32)}
FITS = {"crop": ("crop", None), "inner crop": ("crop", 36), "stretch": ("stretch", None)}


def circle(height: int, width: int, frames: int) -> np.ndarray:
    """A red disc that crosses a gradient; the same places at the same time, whatever the number of frames."""
    y, x = np.mgrid[:height, :width]
    video = np.empty((frames, height, width, 3), np.uint8)
    for t in range(frames):
        keep_out = (y - height / 2) ** 2 + (x - width / 2 - 10 * (t / frames - 0.5)) ** 2 < 22**2
        video[t] = np.stack([x * 255 // width, y * 255 // height, np.full_like(x, 90)], -1)
        video[t][keep_out] = (230, 40, 30)
    return video


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every shape at the model's frame rate and at twice as much."""
    folder = tmp_path_factory.mktemp("videos")
    for name, (height, width) in SHAPES.items():
        for rate in (1, 2):
            video = encode_mp4(circle(height, width, rate * FRAMES), rate * FPS)
            (folder / f"{name} {rate}.mp4").write_bytes(video)
    return folder


@pytest.fixture(scope="module")
def shards(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shards") / "packed"
    pack(open_corpus(videos), out, Packing(Recipe(video="copy"), test_share=0.0), processes=1)
    return out


@pytest.fixture(scope="module", params=list(FITS))
def model_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    sizes = {"patch": 8, "width": 24, "depth": 2, "heads": 2, "tubelet": 2, "positions": "rotary_tiled"}
    config = from_dict({"kind": "video_vit"} | sizes, VideoViT.Config)
    fit, edge = FITS[request.param]
    seen = Preprocessing(SIDE, FPS, MEAN, STD, fit, edge, FRAMES)  # pyright: ignore[reportArgumentType]
    model = LatentWorldModel(build_encoder(config, SIDE, FRAMES), None, LatentSpec(16, 24, 2 / FPS, 2), seen)
    described = {
        "method": "vjepa",
        "encoder": config.model_dump(mode="json"),
        "frames": FRAMES,
        "spec": vars(model.spec),
        "preprocessing": vars(seen),
    }
    checkpoint.save(folder, model, described)
    return folder


def loaded_clips(shards: Path, seen: Preprocessing) -> dict[str, torch.Tensor]:
    """What `jepa pretrain` and `jepa probe` see of each video, uint8 [T, 3, h, w]."""
    data = StreamConfig(
        shards=str(shards),
        batch_size=len(SHAPES) * 2,
        clip_frames=FRAMES,
        fps=FPS,
        image_size=SIDE,
        fit=seen.fit,
        shortest_edge=seen.shortest_edge,
        start_seconds=0.0,
    )
    batch = next(iter(make_loader(data, "train", seed=0, shuffle=False)))
    about = {key: json.loads(text) for key, text in metadata(shards)}
    return {Path(about[key]["source"]).stem: clip for key, clip in zip(batch.keys, batch.video, strict=True)}


def metadata(shards: Path) -> list[tuple[str, bytes]]:
    from jepa_data.shards.index import ShardSet
    from jepa_data.shards.read import ShardFiles

    files = ShardFiles(shards)
    return [(sample.key, files.read(sample)["metadata.json"]) for sample in ShardSet.open(shards).samples]


def native_frames(path: Path, seen: Preprocessing) -> np.ndarray:
    """The frames that stand on screen every 1/fps seconds, as stored."""
    with get_backend("pyav").open(path) as reader:
        return reader.at(np.arange(FRAMES) / seen.fps)


def test_the_loader_files_and_embeddings_give_the_same_latents(
    model_folder: Path, videos: Path, shards: Path, tmp_path: Path
) -> None:
    model = jepa.load(model_folder)
    clips = loaded_clips(shards, model.preprocessing)
    embed(videos, model_folder, tmp_path / "folder.npz")
    embed(shards, model_folder, tmp_path / "shards")
    embed(shards, model_folder, tmp_path / "shards.npz")
    folder, packed = np.load(tmp_path / "folder.npz"), np.load(tmp_path / "shards.npz")
    names = {key: json.loads(text)["source"] for key, text in metadata(shards)}
    keys = {name: key for key, name in names.items()}
    assert len(clips) == 2 * len(SHAPES)
    for name, clip in clips.items():
        path = videos / f"{name}.mp4"
        expected = model.encode_clips(clip[None])
        for found in (
            model.encode(path),
            model.encode(str(path)),
            model.encode(path.read_bytes()),
            model.encode_clips(model.read_video(path)),
            torch.from_numpy(folder[path.name])[None],
            torch.from_numpy(packed[keys[path.name]])[None],
        ):
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
        with model.open_video(path) as file:
            drawn = draw_features(model, file, FRAMES)
        side = SIDE * round(144 / SIDE)
        shown = drawn[:, -6 - side : -6, 6 : 6 + side][:, :: side // SIDE, :: side // SIDE]
        np.testing.assert_array_equal(shown, clip[1::2].permute(0, 2, 3, 1).numpy())


def test_arrays_of_every_layout_and_range_give_the_same_latents(model_folder: Path, videos: Path) -> None:
    model = jepa.load(model_folder)
    for path in sorted(videos.iterdir()):
        frames = native_frames(path, model.preprocessing)  # uint8 [T, h, w, 3]
        video = torch.from_numpy(frames).permute(0, 3, 1, 2)
        expected = model.encode(video[None])
        for found in (
            model.encode(frames),
            model.encode(frames[None]),
            model.encode(video),
            model.encode(video.float() / 255),
            model.encode((frames / 255).astype(np.float64)),
            model.encode((frames / 255).astype(np.float16)),
            model.encode(frames.astype(np.int64)),
            model.encode(list(frames)),
            model.encode(list(video)),
            model.encode([Image.fromarray(frame) for frame in frames]),
        ):
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
        # The decoder scales what it decodes before it makes RGB of it; arrays are scaled afterwards, by torch. Where
        # nothing is scaled nothing differs; else these images with a sharp edge by 4 of 255 on average at most.
        decoded = model.read_video(path)
        difference = (model.preprocessing.fitted(video[None]).int() - decoded.int()).abs().float().mean().item()
        cosine = torch.cosine_similarity(model.encode(path).flatten(), expected.flatten(), 0).item()
        own_size = SHAPES[path.stem[:-2]] == (SIDE, SIDE) and model.preprocessing.shortest_edge is None
        assert difference < (1e-6 if own_size else 4.0), path
        assert cosine > (1 - 1e-6 if own_size else 0.99), path


class Pooled(torch.nn.Module):
    """The mean of the tokens: the dynamics of this test take one vector a step."""

    def __init__(self, encoder: torch.nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, video: torch.Tensor) -> torch.Tensor:
        return self.encoder(video).mean(2, keepdim=True)


def test_a_policy_sees_what_training_saw(model_folder: Path, videos: Path) -> None:
    loaded = jepa.load(model_folder)
    spec = LatentSpec(1, 24, 2 / FPS, 2, action_size=2)
    model = LatentWorldModel(
        Pooled(loaded.encoder), MLPPredictor(MLPPredictor.Config(hidden=8), 24, 4), spec, loaded.preprocessing
    ).eval()
    for path in sorted(videos.iterdir()):
        frames = native_frames(path, loaded.preprocessing)
        policy = Policy(model, frames[-1])
        for frame in frames[:2]:
            policy.act(frame)
        goal = loaded.encode(np.stack([frames[-1]] * 2)).mean(2)[:, 0]
        torch.testing.assert_close(policy.goal[:, 0], goal, atol=1e-5, rtol=0)
        first = loaded.encode(np.stack([frames[0]] * 2)).mean(2)[:, 0]
        torch.testing.assert_close(policy._latents[-1][:, 0], first, atol=1e-5, rtol=0)


def test_a_disc_is_round_for_the_encoder_as_it_was_for_the_loader(videos: Path, shards: Path) -> None:
    seen = Preprocessing(SIDE, FPS, MEAN, STD)
    clips = loaded_clips(shards, seen)
    for name in ("portrait 1", "landscape 2", "square 1"):
        array = torch.from_numpy(circle(*SHAPES[name[:-2]], 1)).movedim(-1, -3)
        for image in (clips[name][0], seen.fitted(array[None])[0, 0]):
            disc = image[2] < 60  # 30 on the disc, 90 around it
            height, width = int(disc.any(1).sum()), int(disc.any(0).sum())
            assert abs(height - width) <= 1 and height == pytest.approx(44 / 64 * SIDE, abs=1.5)


def test_transformers_prepares_and_encodes_an_exported_model_alike(
    model_folder: Path, videos: Path, tmp_path: Path
) -> None:
    from transformers import AutoVideoProcessor, VJEPA2Model

    model = jepa.load(model_folder)
    export(str(model_folder), "huggingface", tmp_path / "hf")
    processor, theirs = (
        AutoVideoProcessor.from_pretrained(tmp_path / "hf"),
        VJEPA2Model.from_pretrained(tmp_path / "hf"),
    )
    again = jepa.load(tmp_path / "hf")
    assert again.preprocessing == model.preprocessing
    for path in sorted(videos.iterdir()):
        video = torch.from_numpy(native_frames(path, model.preprocessing)).permute(0, 3, 1, 2)
        torch.testing.assert_close(again.encode(path), model.encode(path), atol=1e-5, rtol=0)
        pixels = processor(video, return_tensors="pt")["pixel_values_videos"]
        # Both scale with an antialiased bicubic filter; theirs scales before it crops, so edges differ.
        ours = model.prepare(video[None])
        assert (pixels - ours).abs().mean().item() < 0.05, path
        with torch.no_grad():
            tokens = theirs(pixel_values_videos=ours, skip_predictor=True).last_hidden_state
        torch.testing.assert_close(tokens.view(1, 4, 16, 24), model.encode(video), atol=1e-5, rtol=0)


def test_weights_of_transformers_own_processor_are_framed_as_it_does(tmp_path: Path) -> None:
    from transformers import AutoVideoProcessor

    model = imported(
        "huggingface",
        VideoViT(VideoViT.Config(patch=8, tubelet=2, width=24, depth=1, heads=2), SIDE, FRAMES),
        fps=4.0,
        shortest_edge=36,
    ).world
    hub.write_preprocessor(tmp_path, model.preprocessing)
    assert json.loads((tmp_path / hub.PREPROCESSOR).read_text())["video_processor_type"] == "VJEPA2VideoProcessor"
    processor = AutoVideoProcessor.from_pretrained(tmp_path)
    assert processor.size["shortest_edge"] == 36
    video = torch.from_numpy(circle(72, 144, 4)).permute(0, 3, 1, 2)
    pixels = processor(video, return_tensors="pt")["pixel_values_videos"]
    assert (pixels - model.prepare(video[None])).abs().mean().item() < 0.05


def test_onnx_files_give_the_same_latents_and_say_how_to_prepare_video(tmp_path: Path, videos: Path) -> None:
    import onnxruntime

    seen = Preprocessing(SIDE, FPS, MEAN, STD, "crop", 36, 4)
    torch.manual_seed(0)
    model = imported(
        "meta",
        VideoViT(VideoViT.Config(patch=8, tubelet=2, width=24, depth=1, heads=2), SIDE, 4),
        fps=FPS,
        shortest_edge=36,
    )
    from jepa.models.model import save

    save(model, tmp_path / "model")
    export(str(tmp_path / "model"), "onnx", tmp_path / "a.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx", providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map
    assert (about["fit"], about["shortest_edge"], about["image_size"]) == ("crop", "36", str(SIDE))
    video = torch.from_numpy(native_frames(videos / "landscape 2.mp4", seen)[:4]).permute(0, 3, 1, 2)
    found = session.run(None, {"video": model.world.prepare(video[None]).numpy()})[0]
    torch.testing.assert_close(torch.from_numpy(found), model.world.encode(video), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (torch.randn(1, 4, 3, 32, 32), r"floats are read as 0..1, found -.*before they are normalized"),
        (torch.rand(1, 4, 3, 32, 32) * 255, r"floats are read as 0..1, found .*255"),
        (np.full((4, 32, 32, 3), np.nan), "floats are read as 0..1, found nan"),
        (np.full((4, 32, 32, 3), 256), "integers are read as 0..255, found 256..256"),
        (torch.zeros(1, 3, 4, 32, 32, dtype=torch.uint8), r"give video.transpose\(1, 2\)"),
        (torch.zeros(4, 1, 32, 32, dtype=torch.uint8), "Repeat a gray channel three times"),
        (np.zeros((32, 32), np.uint8), r"found uint8 \[32, 32\]; expected RGB video"),
        (np.zeros((4, 32, 32, 3), bool), "found a numpy array of bool"),
        (["a.png"], "found str"),
        (np.full((4, 32, 32, 3), 300, np.uint16), "integers are read as 0..255, found 300..300"),
        (np.zeros((4, 0, 32, 3), np.uint8), "holds no pixels"),
        (Image.fromarray(np.zeros((8, 8), np.float32)), "PIL image of mode F"),
        ([], "the list of frames is empty"),
        ([np.zeros((32, 32, 3), np.uint8), np.zeros((16, 32, 3), np.uint8)], "alike in size and kind"),
        (object(), "found object; expected RGB video"),
    ],
)
def test_images_that_could_be_misread_are_refused(given: object, words: str) -> None:
    with pytest.raises(UserError, match=words):
        as_video(given)


def test_images_in_every_form_are_encoded_as_stills(tmp_path: Path) -> None:
    torch.manual_seed(0)
    spec, seen = LatentSpec(16, 24, 0.5, 2), Preprocessing(SIDE, 4.0, MEAN, STD)
    model = LatentWorldModel(
        VideoViT(VideoViT.Config(patch=8, tubelet=2, width=24, depth=1, heads=2), SIDE, 4), None, spec, seen
    ).eval()
    image = circle(64, 96, 1)[0]
    Image.fromarray(image).save(tmp_path / "a.png")
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    expected = model.encode(np.stack([image, image]))
    chw = torch.from_numpy(image).permute(2, 0, 1)
    for found in (image, image / 255, chw, Image.fromarray(image), Image.fromarray(image).convert("RGBA")):
        torch.testing.assert_close(model.encode(found), expected, atol=1e-5, rtol=0)
    for found in (tmp_path / "a.png", str(tmp_path / "a.png"), buffer.getvalue()):  # scaled by Pillow
        assert torch.cosine_similarity(model.encode(found).flatten(), expected.flatten(), 0) > 0.99
    turned = Image.fromarray(np.rot90(image).copy())
    turned.getexif()[0x0112] = 6  # a camera that was held sideways
    turned.save(tmp_path / "turned.jpg", quality=100, subsampling=0, exif=turned.getexif())
    with Image.open(tmp_path / "turned.jpg") as opened:
        upright = model.encode(opened)
    assert torch.cosine_similarity(upright.flatten(), expected.flatten(), 0) > 0.99


def test_a_model_with_an_embedding_for_images_uses_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = VideoViT(
        VideoViT.Config(patch=8, tubelet=2, width=24, depth=2, heads=2, images=True, levels=(0, 1)), SIDE, 4
    ).eval()
    model = LatentWorldModel(encoder, None, LatentSpec(16, 24, 0.5, 2), Preprocessing(SIDE, 4.0, MEAN, STD)).eval()
    image = circle(SIDE, SIDE, 1)[0]
    still = torch.from_numpy(image).permute(2, 0, 1)[None, None]
    expected = encoder(model.prepare(still))
    torch.testing.assert_close(model.encode(image), expected, atol=1e-6, rtol=0)
    repeated = model.encode(still.expand(-1, 2, -1, -1, -1))
    assert (model.encode(image) - repeated).abs().max() > 1e-2
    acting = LatentWorldModel(
        encoder, MLPPredictor(MLPPredictor.Config(), 24, 4), LatentSpec(16, 24, 0.5, 2, 2), model.preprocessing
    )
    torch.testing.assert_close(acting.encode(image), repeated, atol=1e-6, rtol=0)


def test_a_folder_of_images_is_embedded(model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(circle(64, 96, 1)[0]).save(tmp_path / "in" / "a.png")
    Image.fromarray(circle(96, 64, 1)[0]).save(tmp_path / "in" / "b.jpg")
    assert embed(tmp_path / "in", model_folder, tmp_path / "x.npz") == 2
    model = jepa.load(model_folder)
    with np.load(tmp_path / "x.npz") as table:
        for name in ("a.png", "b.jpg"):
            expected = model.encode(tmp_path / "in" / name)[0].numpy()
            np.testing.assert_allclose(table[name], expected, atol=1e-5)
            assert table[f"{name}.seconds"].tolist() == [0.0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_in_half_precision_of_transformers_encode_as_in_fp32(tmp_path: Path, dtype: torch.dtype) -> None:
    from transformers import VJEPA2Config, VJEPA2Model

    torch.manual_seed(0)
    sizes = {"patch_size": 8, "crop_size": SIDE, "frames_per_clip": 4, "hidden_size": 24, "num_attention_heads": 2}
    small = {"num_hidden_layers": 1, "pred_hidden_size": 12, "pred_num_attention_heads": 2, "pred_num_hidden_layers": 1}
    theirs = VJEPA2Model(VJEPA2Config(**sizes, **small)).to(dtype)
    theirs.save_pretrained(tmp_path)
    model, video = jepa.load(tmp_path), torch.randint(0, 256, (1, 4, 3, SIDE, SIDE), dtype=torch.uint8)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    with torch.no_grad():
        expected = theirs.float()(pixel_values_videos=model.prepare(video), skip_predictor=True).last_hidden_state
    torch.testing.assert_close(model.encode(video).flatten(1, 2), expected, atol=1e-5, rtol=0)


def test_a_model_that_the_user_casts_is_given_its_own_precision() -> None:
    encoder = VideoViT(VideoViT.Config(patch=8, tubelet=2, width=24, depth=1, heads=2), SIDE, 4)
    model = LatentWorldModel(encoder, None, LatentSpec(16, 24, 0.5, 2), Preprocessing(SIDE, 4.0, MEAN, STD)).eval()
    video = circle(SIDE, SIDE, 4)
    expected = model.encode(video)
    found = model.to(torch.bfloat16).encode(video)
    assert found.dtype == torch.bfloat16
    assert torch.cosine_similarity(found.float().flatten(), expected.flatten(), 0) > 0.99


def test_every_nth_frame_makes_a_slower_model(corpus: Path, tmp_path: Path) -> None:
    """data.stride was left out of the model's frame rate, so files were encoded too fast."""
    arguments = [
        "encoder.kind=conv",
        f"data.shards={corpus}",
        "data.stride=2",
        "data.clip_frames=4",
        "trainer.steps=1",
        f"run={tmp_path / 'run'}",
        "encoder.tubelet=2",
        "data.batch_size=4",
        "trainer.device=cpu",
    ]
    config = tmp_path / "c.yaml"
    config.write_text("method: {kind: lewm}\n")
    with pytest.raises(SystemExit) as ended:
        main(["pretrain", str(config), *arguments])
    assert ended.value.code in (0, None)
    model = jepa.load(tmp_path / "run")
    assert model.preprocessing.fps == pytest.approx(5.0) and model.spec.step_seconds == pytest.approx(0.4)
    assert model.preprocessing.clip_frames == 4


def test_shards_that_are_not_square_ask_for_the_size_of_the_images(shards: Path, tmp_path: Path) -> None:
    folder = tmp_path / "wide"
    folder.mkdir()
    for i in range(4):
        (folder / f"{i}.mp4").write_bytes(encode_mp4(circle(64, 96, 8), FPS))
    pack(open_corpus(folder), tmp_path / "shards", Packing(Recipe(video="copy"), test_share=0.0), processes=1)
    config = tmp_path / "c.yaml"
    config.write_text(
        f"run: {tmp_path / 'run'}\ndata: {{shards: {tmp_path / 'shards'}, batch_size: 2, clip_frames: 4}}\n"
        "encoder: {kind: video_vit, patch: 8, width: 24, depth: 1, heads: 2}\n"
        "method: {kind: vjepa, predictor: {width: 12, depth: 1, heads: 2}}\ntrainer: {steps: 1}\n"
    )
    from jepa.config import load
    from jepa.training.config import PretrainConfig
    from jepa.training.pretrain import pretrain

    with pytest.raises(UserError, match=r"its videos are 96x64.*data.image_size=NUMBER"):
        pretrain(load(config, PretrainConfig))


def test_a_goal_of_floats_is_the_same_goal(videos: Path) -> None:
    torch.manual_seed(0)
    spec, seen = LatentSpec(16, 24, 0.5, 2, 2), Preprocessing(SIDE, 4.0, MEAN, STD)
    model = LatentWorldModel(
        VideoViT(VideoViT.Config(patch=8, tubelet=2, width=24, depth=1, heads=2), SIDE, 4),
        MLPPredictor(MLPPredictor.Config(), 24, 4),
        spec,
        seen,
    ).eval()
    image = circle(64, 96, 1)[0]
    expected = Policy(model, image).goal
    for goal in (image / 255, (image / 255).astype(np.float32)):
        torch.testing.assert_close(Policy(model, goal).goal, expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(model.encode_image(goal[None]), expected, atol=1e-5, rtol=0)
        assert model.prepare(goal[None, None]).shape == (1, 1, 3, SIDE, SIDE)
    for wrong in (image[..., 0], Image.fromarray(image), image.transpose(2, 0, 1)):
        with pytest.raises(UserError, match=r"expected RGB images as a numpy array \[h, w, 3\]"):
            Policy(model, wrong)  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError, match=r"found torch\.float32; use encode or prepare"):
        model.encode_clips(torch.zeros(1, 2, 3, SIDE, SIDE))
