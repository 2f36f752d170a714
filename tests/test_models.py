"""Every architecture: its count, its layers, its logits, its seeds."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from models import MODELS, ModelError, build_model

COUNTS = {  # classes, parameters at the default size
    "alexnet": (1000, 62_378_344),
    "alexnet_2012": (1000, 60_965_224),
    "alexnet_cifar": (10, 18_075_242),
    "vgg11": (1000, 132_863_336),
    "vgg13": (1000, 133_047_848),
    "vgg16": (1000, 138_357_544),
    "vgg19": (1000, 143_667_240),
    # Instead of each bias a beta, a gamma and two moving statistics.
    "alexnet_bn": (1000, 62_378_344 + 3 * 1_376),
    "vgg11_bn": (1000, 132_863_336 + 3 * 2_752),
    "vgg13_bn": (1000, 133_047_848 + 3 * 2_944),
    "vgg16_bn": (1000, 138_357_544 + 3 * 4_224),
    "vgg19_bn": (1000, 143_667_240 + 3 * 5_504),
    # 0.27 and 0.85 million in table 6 of the paper.
    "resnet20": (10, 271_098),
    "resnet56": (10, 857_082),
}


@pytest.fixture
def shapes_only():
    """Models built in here have shapes but no values: a VGG's weights would take 550 MB each."""
    with keras.StatelessScope(initialize_variables=False):
        yield
    keras.backend.clear_session()  # forgets the variables that still wait for a value


@pytest.fixture
def precision():
    before = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)


def _images(size: int, count: int = 2) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def _gradients(model: keras.Model, images: np.ndarray, labels: list[int]) -> list[np.ndarray]:
    """Gradients of the loss, through a compiled graph as in training."""

    @tf.function
    def step(images):
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
        return tape.gradient(loss, [weight.value for weight in model.trainable_weights])

    return [gradient.numpy() for gradient in step(images)]


@pytest.mark.parametrize("name", MODELS)
def test_parameter_count(name, shapes_only):
    classes, count = COUNTS[name]
    assert build_model(name, classes=classes, image_size=MODELS[name].default_size).count_params() == count


@pytest.mark.parametrize("name", MODELS)
def test_smallest_size_leaves_one_pixel_and_one_less_is_refused(name, shapes_only):
    least = MODELS[name].min_size
    model = build_model(name, classes=10, image_size=least)
    maps = next(layer for layer in model.layers if layer.name == "flatten" or "global" in type(layer).__name__.lower())
    # A ResNet halves them twice.
    assert maps.input.shape[1:3] == ((2, 2) if "resnet" in name else (1, 1)) and model.output_shape == (None, 10)
    with pytest.raises(ModelError, match=f"image size for {name} is {least - 1}.* at least {least}"):
        build_model(name, classes=10, image_size=least - 1)


def test_layer_names_are_the_papers(shapes_only):
    def names(name):
        layers = build_model(name, classes=10, image_size=MODELS[name].min_size, dropout=0).layers
        return " ".join(layer.name for layer in layers)

    head, tail = "image scale", "flatten fc6 fc7 fc8 logits"
    assert names("alexnet") == f"{head} conv1 pool1 conv2 pool2 conv3 conv4 conv5 pool5 {tail}"
    assert names("alexnet_2012") == f"{head} conv1 norm1 pool1 conv2 norm2 pool2 conv3 conv4 conv5 pool5 {tail}"
    assert names("alexnet_cifar") == f"{head} conv1 pool1 conv2 pool2 conv3 conv4 pool4 conv5 pool5 {tail}"
    reference = " ".join(layer.name for layer in keras.applications.VGG16(weights=None).layers[1:])
    assert names("vgg16") == f"{head} {reference} logits"


def test_a_resnet_is_the_papers(shapes_only):
    """6n + 2 layers with weights, 32, 16 and 8 pixels a side, and shortcuts without weights."""
    for name, blocks in (("resnet20", 3), ("resnet56", 9)):
        model = build_model(name, classes=10, image_size=32)
        weighted = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense)]
        assert len(weighted) == 6 * blocks + 2
        sums = [layer.output.shape[1:] for layer in model.layers if isinstance(layer, keras.layers.Add)]
        assert sums == [shape for shape in ((32, 32, 16), (16, 16, 32), (8, 8, 64)) for _ in range(blocks)]


def test_a_shortcut_is_every_second_pixel_and_zeros_behind_its_channels():
    model = build_model("resnet20", classes=10, image_size=8, seed=1)
    ends = ("stage1_block3_relu2", "stage2_block1_zeros")
    before, after = keras.Model(model.inputs, [model.get_layer(name).output for name in ends])(_images(8))
    assert before.shape[-1] == 16 and np.ptp(before) > 0
    np.testing.assert_array_equal(after[..., :16], before[:, ::2, ::2])
    assert after.shape[-1] == 32 and not np.any(after[..., 16:])


@pytest.mark.parametrize("name", [name for name in MODELS if name.endswith("_bn") or name.startswith("resnet")])
def test_a_normalised_convolution_has_no_bias_and_no_activation_of_its_own(name, shapes_only):
    model = build_model(name, classes=10, image_size=MODELS[name].min_size)
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    for layer in convolutions:
        (node,) = layer._outbound_nodes
        assert type(node.operation) is keras.layers.BatchNormalization and not layer.use_bias
        assert layer.activation is keras.activations.linear
    assert sum(type(layer) is keras.layers.BatchNormalization for layer in model.layers) == len(convolutions)


def test_dropout_of_a_resnet_lies_in_front_of_its_last_layer(shapes_only):
    model = build_model("resnet20", classes=10, image_size=32, dropout=0.3)
    assert [layer.name for layer in model.layers][-4:] == ["pool", "dropout", "fc", "logits"]


def test_pixels_are_scaled_to_minus_one_to_one():
    model = build_model("alexnet_cifar", classes=10, image_size=16)
    assert model.input.dtype == "uint8"
    pixels = np.broadcast_to(np.array([0, 102, 255], np.uint8), (1, 16, 16, 3))
    scaled = keras.ops.convert_to_numpy(model.get_layer("scale")(pixels))
    np.testing.assert_allclose(scaled[0, 0, 0], [-1, -0.2, 1], atol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_logits_are_float32_in_every_precision(policy, precision):
    precision(policy)
    model = build_model("alexnet_2012", classes=10, image_size=67, seed=1)
    assert model.get_layer("conv2").compute_dtype == policy.removeprefix("mixed_")
    logits = model(_images(67))
    assert logits.dtype == "float32" and logits.shape == (2, 10)
    assert np.isfinite(logits).all() and np.ptp(logits) > 0
    assert all(np.isfinite(gradient).all() for gradient in _gradients(model, _images(67), [3, 7]))


def test_two_classes_are_one_logit(shapes_only):
    assert build_model("alexnet_cifar", classes=2, image_size=16).output_shape == (None, 1)
    assert build_model("alexnet_cifar", classes=3, image_size=16).output_shape == (None, 3)


def test_same_seed_same_weights_whatever_the_dropout():
    def weights(seed, dropout=None):
        model = build_model("alexnet_cifar", classes=10, image_size=16, seed=seed, dropout=dropout)
        return [weight.numpy() for weight in model.trainable_weights]

    first = weights(5)
    for same in (weights(5), weights(5, dropout=0)):
        assert all(np.array_equal(a, b) for a, b in zip(first, same, strict=True))
    for other in (weights(6), weights(None)):  # kernels only, biases are zero
        assert not any(np.array_equal(a, b) for a, b in zip(first[::2], other[::2], strict=True))


def test_layers_of_one_shape_get_different_he_uniform_weights():
    model = build_model("vgg11", classes=10, image_size=32, seed=5)
    first, second = (model.get_layer(name).kernel.numpy() for name in ("block5_conv1", "block5_conv2"))
    assert not np.array_equal(first, second)
    assert np.abs(first).max() == pytest.approx(np.sqrt(6 / (9 * 512)), rel=1e-3)


def test_seed_gives_the_weights_it_gave_in_another_process():
    model = build_model("alexnet_cifar", classes=10, image_size=16, seed=5)
    np.testing.assert_allclose(
        model.get_layer("fc8").kernel.numpy()[0, :3], [-0.0174711, -0.0202273, -0.0136894], rtol=1e-5
    )


def test_dropout_is_the_papers_unless_told_otherwise(shapes_only):
    def rates(**arguments):
        model = build_model("vgg11", classes=10, image_size=32, **arguments)
        return [layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)]

    assert rates() == [0.5, 0.5]
    assert rates(dropout=0.2) == [0.2, 0.2]
    assert rates(dropout=0) == rates(dropout=0.0) == []


@pytest.mark.parametrize(
    "name, names, seeds",
    [
        ("alexnet_cifar", ["fc6_dropout", "fc7_dropout"], [1892045091, 1105948743]),
        ("vgg11", ["fc1_dropout", "fc2_dropout"], [1471228222, 1332998395]),
    ],
)
def test_dropout_is_kerass_own_with_the_seeds_that_trained_runs_had(name, names, seeds, shapes_only):
    layers = build_model(name, classes=10, image_size=MODELS[name].min_size, seed=3).layers
    found = [layer for layer in layers if type(layer) is keras.layers.Dropout]
    assert [layer.name for layer in found] == names and [layer.seed for layer in found] == seeds


@pytest.mark.parametrize("name, size", [("alexnet_2012", 67), ("vgg11", 32), ("vgg16", 33)])
def test_one_step_moves_every_weight(name, size):
    model = build_model(name, classes=10, image_size=size, seed=1)
    gradients = _gradients(model, _images(size), [3, 7])
    for weight, gradient in zip(model.trainable_weights, gradients, strict=True):
        assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0, weight.path


def test_alexnet_2012_learns_from_its_initial_values():
    """Ten coarse patterns by heart; the paper's initial values stay at chance, 2.3."""
    model = build_model("alexnet_2012", classes=10, image_size=67, dropout=0, seed=1)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), loss, jit_compile=False)
    images = tf.image.resize(_images(4, 10), (67, 67)).numpy().astype(np.uint8)
    history = model.fit(images, np.arange(10), batch_size=10, epochs=12, verbose=0, shuffle=False).history["loss"]
    assert history[-1] < 1, history


def test_a_saved_model_comes_back(tmp_path):
    model = build_model("alexnet_2012", classes=10, image_size=67, seed=1)
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "model.keras")(_images(67)), model(_images(67)))


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"name": "resnet"}, "model is 'resnet', but must be one of alexnet, alexnet_bn, .*resnet56"),
        ({"image_size": 15}, "image size for alexnet_cifar is 15, .* at least 16; use larger images"),
        ({"name": "vgg16", "image_size": 16}, "image size for vgg16 is 16, .* or one of alexnet_cifar"),
        ({"image_size": 32.0}, "image size for alexnet_cifar is 32.0, .* whole number"),
        ({"image_size": (32, 32)}, r"image size for alexnet_cifar is \(32, 32\), .* whole number"),
        ({"image_size": True}, "image size for alexnet_cifar is True, .* whole number.* pass one number"),
        ({"classes": 1}, "number of classes is 1, .* at least 2"),
        ({"dropout": 1.0}, r"dropout is 1.0, .* \[0, 1\)"),
        ({"seed": -1}, "seed is -1, .* at least 0"),
    ],
)
def test_errors_name_what_came_and_what_was_expected(changed, message):
    arguments = {"name": "alexnet_cifar", "classes": 10, "image_size": 32, **changed}
    with pytest.raises(ModelError, match=message) as error:
        build_model(arguments.pop("name"), **arguments)
    assert isinstance(error.value, ValueError) and str(error.value).count(". ") == 0


@pytest.mark.parametrize("mode", ("tf", "torch", "caffe"))
def test_pixels_are_scaled_as_keras_applications_does(mode):
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    model = build_model("vgg11", classes=3, image_size=32, pixels=mode)
    scaled = keras.Model(model.inputs, model.get_layer("scale").output)(images)
    expected = keras.applications.imagenet_utils.preprocess_input(images.astype(np.float32), mode=mode)
    np.testing.assert_allclose(scaled, expected, rtol=1e-5, atol=1e-5)
