"""Keras' private attributes: each still does what kpipe needs, and no other file uses one."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path

import keras
import keras_cv
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from kpipe import keras_internals as ours
from kpipe.sparsity import tf_keras_internals as theirs

SOURCES = Path(ours.__file__).parent
INTERNALS = (Path(ours.__file__), Path(theirs.__file__))

# Private names of libraries other than Keras: of named tuples, LiteRT and TensorFlow's converter.
NOT_OF_KERAS = {"_replace", "_get_ops_details", "_experimental_calibrate_only"}


def functional(library) -> object:
    """A branch, a shared layer, a dropout, and inputs in a dictionary."""
    image = library.Input((6, 6, 3), name="image")
    shared = library.layers.Conv2D(3, 3, padding="same", name="shared")
    x = shared(image)
    x = library.layers.Add(name="add")([x, shared(x)])
    x = library.layers.Dropout(0.5, seed=1, name="dropout")(x)
    x = library.layers.BatchNormalization(name="norm")(x)
    return library.Model({"image": image}, [x], name="net")


def optimizer(kind: type = keras.optimizers.SGD, **options) -> keras.optimizers.Optimizer:
    """Built on two variables."""
    made = kind(0.1, **options)
    made.build([keras.Variable([1.0], name="a"), keras.Variable([2.0], name="b")])
    return made


def check_function_of() -> None:
    model = functional(keras)
    sequential = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    assert ours.function_of(model) is model
    assert isinstance(ours.function_of(sequential), keras.Function)
    assert ours.function_of(keras.Sequential([keras.layers.Dense(2)])) is None
    assert ours.function_of(keras.layers.Dense(2)) is None


def check_nodes_in_order() -> None:
    nodes = list(ours.nodes_in_order(functional(keras)))
    names = ["image", "shared", "shared", "add", "dropout", "norm"]
    assert [node.operation.name for node in nodes] == names
    assert [node.is_input for node in nodes] == [True, *[False] * 5]
    assert nodes[3].input_tensors == [nodes[1].outputs[0], nodes[2].outputs[0]]
    assert nodes[3].arguments.args == (nodes[3].input_tensors,)
    assert nodes[3].arguments.kwargs == {}


def check_structures() -> None:
    model = functional(keras)
    assert ours.input_structure(model) == {"image": model.inputs[0]}
    assert ours.output_structure(model) == [model.outputs[0]]


def check_input_name() -> None:
    assert ours.input_name(functional(keras).inputs[0]) == "image"


def check_outputs_by_call() -> None:
    model = functional(keras)
    nodes = [n for n in ours.nodes_in_order(model) if n.operation.name == "shared"]
    assert ours.outputs_by_call(model.get_layer("shared")) == [list(n.outputs) for n in nodes]


def check_mask_and_reshape() -> None:
    words = keras.Input((4,))
    assert ours.mask_of(keras.layers.Embedding(9, 2, mask_zero=True)(words)) is not None
    assert ours.mask_of(words) is None
    made = ours.Reshape((-1, 2), name="rows")(words)
    assert made.shape == (None, 2) and made._keras_history.operation.name == "rows"


def check_layers_within() -> None:
    inner = functional(keras)
    outer = keras.Model(inner.inputs[0], keras.layers.Flatten()(inner(inner.inputs[0])[0]))
    within = ours.layers_within(outer)
    assert within[0] is outer and {inner, *inner.layers} <= set(within)
    assert outer not in ours.layers_within(outer, include_self=False)


def check_context_arguments() -> None:
    layer, image = keras.layers.Dropout(0.9), np.ones((50, 4), "float32")
    assert "training" in ours.context_arguments(layer)
    assert ours.context_arguments((keras.Input((4,)) * 2.0)._keras_history.operation) == set()
    row = keras.Input((4,))
    model = keras.Model(row, layer(row))
    assert not np.array_equal(model(image, training=True), image)
    ours.set_context_arguments(layer, ours.context_arguments(layer) - {"training"})
    np.testing.assert_array_equal(model(image, training=True), image)


def check_term_of() -> None:
    term = keras.regularizers.L2(0.1)
    for layer in (keras.layers.Dense(2, kernel_regularizer=term), attention(keras, term)):
        assert ours.term_of(layer, "kernel_regularizer") is term
    theirs_term = tf_keras.regularizers.L2(0.1)
    assert ours.term_of(attention(tf_keras, theirs_term), "kernel_regularizer") is theirs_term


def attention(library, term) -> object:
    return library.layers.MultiHeadAttention(2, 3, kernel_regularizer=term)


def check_trusted_deserialization() -> None:
    halves = keras.layers.Lambda(lambda x: x / 2)
    with pytest.raises(ValueError, match="Python lambda"):
        keras.layers.Lambda.from_config(halves.get_config())
    with ours.trusted_deserialization():
        again = keras.layers.Lambda.from_config(halves.get_config())
    assert again(np.float32(3)) == 1.5
    with pytest.raises(ValueError, match="Python lambda"):
        keras.layers.Lambda.from_config(halves.get_config())


def check_public_module() -> None:
    assert ours.public_module(keras.layers.Conv2D) == "layers"
    raw = (keras.Input((4,)) * 2.0)._keras_history.operation
    assert (ours.public_module(type(raw)), type(raw).__name__) == ("ops", "Multiply")
    assert ours.public_module(Path) == Path.__module__


def check_given_learning_rate() -> None:
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    assert ours.given_learning_rate(keras.optimizers.SGD(schedule)) is schedule
    assert not callable(ours.given_learning_rate(keras.optimizers.SGD(0.1)))


def check_optimizer_variables() -> None:
    made = optimizer()
    names = [variable.name for variable in ours.optimizer_variables(made)]
    assert names == ["a", "b"]
    assert [ours.variable_index(made, v) for v in ours.optimizer_variables(made)] == [0, 1]


def check_step_counter() -> None:
    made = optimizer(gradient_accumulation_steps=2)
    made.apply([np.ones(1, "float32"), np.ones(1, "float32")])
    assert int(ours.step_counter(made)) == 1 and int(made.iterations) == 0
    gradients = ours.accumulated_gradients(made)
    assert [float(gradient[0]) for gradient in gradients] == [1.0, 1.0]


def check_first_moments() -> None:
    adam, weight = keras.optimizers.Adam(beta_1=0.75), keras.Variable(np.ones(1, "float32"))
    adam.build([weight])
    adam.apply([np.full(1, 2.0, "float32")])
    assert float(ours.first_moments(adam)[0][0]) == 0.5


def check_moving_averages() -> None:
    made = optimizer(use_ema=True, ema_momentum=0.5)
    made.apply([np.ones(1, "float32"), np.ones(1, "float32")])
    values = [float(average[0]) for average in ours.moving_averages(made)]
    np.testing.assert_allclose(values, [v[0] for v in ours.optimizer_variables(made)])


def check_update_moving_averages() -> None:
    made, seen = optimizer(use_ema=True), []
    object.__setattr__(made, ours.UPDATE_MOVING_AVERAGES, lambda variables: seen.append(variables))
    made.apply([np.ones(1, "float32"), np.ones(1, "float32")])
    assert len(seen) == 1


def check_apply_weight_decay() -> None:
    made, seen = optimizer(weight_decay=0.1), []
    object.__setattr__(made, ours.APPLY_WEIGHT_DECAY, lambda variables: seen.append(variables))
    made.apply([np.ones(1, "float32"), np.ones(1, "float32")])
    assert len(seen) == 1
    assert callable(getattr(optimizer(), ours.APPLY_WEIGHT_DECAY))


def check_decay_exclusions() -> None:
    source, target = keras.optimizers.AdamW(0.1), keras.optimizers.AdamW(0.1)
    assert not ours.has_decay_exclusions(source)
    named, other = keras.Variable([1.0], name="bias"), keras.Variable([1.0], name="kernel")
    source.exclude_from_weight_decay(var_names=["bias"])
    assert ours.has_decay_exclusions(source)
    ours.copy_decay_exclusions(source, target)
    assert not ours.decays_weight(target, named) and ours.decays_weight(target, other)


def check_set_compiled_optimizer() -> None:
    model = functional(keras)
    model.compile("adam", "mse")
    ours.set_compiled_optimizer(model, keras.optimizers.SGD(0.3))
    assert model.get_compile_config()["optimizer"]["class_name"] == "SGD"
    assert model.get_compile_config()["loss"] == "mse"


class Note(ours.Saveable):
    value = 0

    def save_own_variables(self, store) -> None:
        store["value"] = np.array(self.value)

    def load_own_variables(self, store) -> None:
        self.value = int(store["value"][()])


def check_saveable(folder: Path) -> None:
    model, note = functional(keras), Note()
    object.__setattr__(model, "note", note)
    note.value = 3
    model.save_weights(folder / "m.weights.h5")
    note.value = 0
    model.load_weights(folder / "m.weights.h5")
    assert note.value == 3


def check_file_utils(monkeypatch: pytest.MonkeyPatch) -> None:
    class Asked(Exception):
        pass

    def fetch(*args, **options):
        raise Asked

    monkeypatch.setattr(ours.file_utils, "get_file", fetch)
    with pytest.raises(Asked):
        keras.applications.MobileNet(alpha=0.25, input_shape=(128, 128, 3))


def check_classes() -> None:
    assert isinstance(functional(keras), ours.Functional)
    assert not isinstance(keras.Sequential(), ours.Functional)
    for module, library in ((ours, keras), (theirs, tf_keras)):
        for cls in (module.LayerScale, module.CustomScaleLayer):
            assert issubclass(cls, library.layers.Layer)


class Ones:
    """A generator of KerasCV whose every draw is 1."""

    def __getattr__(self, name: str) -> Callable[..., tf.Tensor]:
        return lambda shape=(), *args, **options: tf.ones(shape)


def check_kerascv() -> None:
    layer = keras_cv.layers.FourierMix(0.5, seed=1)
    ours.set_generator(layer, Ones())
    size = tf.constant([8, 8])
    field = ours.sample_mask_field(layer, size)
    np.testing.assert_array_equal(field, ours.sample_mask_field(layer, size))
    ramp = tf.reshape(tf.range(64.0), (8, 8))
    mask = np.asarray(ours.binarize_mask(layer, ramp, tf.constant(0.25), size))
    assert set(mask.ravel()) == {0, 1} and mask.mean() == 0.25 and mask[-1].all()


def check_tf_keras_graph() -> None:
    model = functional(tf_keras)
    assert theirs.has_graph(model) and not theirs.has_graph(tf_keras.Sequential())
    names = ["image", "shared", "shared", "add", "dropout", "norm"]
    nodes = list(theirs.nodes_in_order(model))
    assert [node.layer.name for node in nodes] == names
    (_, first, *_) = nodes
    args, kwargs = first.map_arguments({str(id(model.inputs[0])): ["in its place"]})
    assert (args, kwargs) == (("in its place",), {})
    assert theirs.input_structure(model).keys() == {"image"}
    assert len(tf.nest.flatten(theirs.output_structure(model))) == 1
    assert isinstance(model.inputs[0], theirs.KerasTensor)
    assert set(model.layers) < set(theirs.layers_within(model))


def check_tf_keras_layers() -> None:
    model = functional(tf_keras)
    dropout = tf_keras.layers.Dropout(0.5, seed=1, rng_type="stateful")
    dropout(tf.ones((2, 2)), training=True)
    assert isinstance(dropout, theirs.BaseRandomLayer)
    assert isinstance(theirs.generator_of(dropout), tf.random.Generator)
    rows = tf_keras.layers.BatchNormalization()
    rows.build((None, 4))
    assert theirs.may_fuse(model.get_layer("norm")) and not theirs.may_fuse(rows)


CHECKS = {
    "function_of": (check_function_of, "keras.Sequential._functional"),
    "nodes_in_order": (check_nodes_in_order, "keras.Function._nodes_by_depth"),
    "input_structure, output_structure": (
        check_structures,
        "keras.Function._inputs_struct, _outputs_struct",
    ),
    "input_name": (check_input_name, "keras.KerasTensor._keras_history"),
    "outputs_by_call": (check_outputs_by_call, "keras.Operation._inbound_nodes"),
    "mask_of, Reshape": (check_mask_and_reshape, "keras.src.backend.get_keras_mask, ops Reshape"),
    "layers_within": (check_layers_within, "keras.Layer._flatten_layers"),
    "context_arguments, set_context_arguments": (
        check_context_arguments,
        "keras.Layer._call_context_args",
    ),
    "term_of": (check_term_of, "MultiHeadAttention._kernel_regularizer"),
    "trusted_deserialization": (
        check_trusted_deserialization,
        "keras.src.saving.serialization_lib.SafeModeScope",
    ),
    "public_module": (check_public_module, "the module path keras.src.layers"),
    "given_learning_rate": (check_given_learning_rate, "Optimizer._learning_rate"),
    "optimizer_variables, variable_index": (
        check_optimizer_variables,
        "Optimizer._trainable_variables, _get_variable_index",
    ),
    "step_counter, accumulated_gradients": (
        check_step_counter,
        "Optimizer._iterations, _accumulated_gradients",
    ),
    "first_moments": (check_first_moments, "Adam._momentums"),
    "moving_averages": (check_moving_averages, "Optimizer._model_variables_moving_average"),
    "UPDATE_MOVING_AVERAGES": (
        check_update_moving_averages,
        f"Optimizer.{ours.UPDATE_MOVING_AVERAGES}",
    ),
    "APPLY_WEIGHT_DECAY": (check_apply_weight_decay, f"Optimizer.{ours.APPLY_WEIGHT_DECAY}"),
    "has_decay_exclusions, copy_decay_exclusions, decays_weight": (
        check_decay_exclusions,
        "Optimizer._exclude_from_weight_decay, _exclude_from_weight_decay_pattern, "
        "_use_weight_decay",
    ),
    "set_compiled_optimizer": (check_set_compiled_optimizer, "keras.Model._compile_config"),
    "Saveable": (check_saveable, "KerasSaveable._obj_type"),
    "file_utils": (check_file_utils, "keras.src.utils.file_utils.get_file"),
    "Functional, LayerScale, CustomScaleLayer": (check_classes, "these classes"),
    "set_generator, sample_mask_field, binarize_mask": (
        check_kerascv,
        "FourierMix._random_generator, _sample_mask_from_transform, _binarise_mask",
    ),
    "tf_keras: has_graph, nodes_in_order, input_structure, output_structure, layers_within, "
    "KerasTensor": (
        check_tf_keras_graph,
        "tf_keras.Model._is_graph_network, _nodes_by_depth, _nested_inputs, _nested_outputs, "
        "_flatten_layers",
    ),
    "tf_keras: generator_of, may_fuse, BaseRandomLayer": (
        check_tf_keras_layers,
        "BaseRandomLayer._random_generator, BatchNormalization._data_format",
    ),
}


@pytest.mark.parametrize("functions", CHECKS)
def test_private_attributes_do_what_kpipe_needs(
    functions: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check, attributes = CHECKS[functions]
    needs = {"folder": tmp_path, "monkeypatch": monkeypatch}
    try:
        check(**{name: needs[name] for name in check.__annotations__ if name in needs})
    except Exception as error:
        library, _, names = functions.rpartition(": ")
        file = theirs.__file__ if library else ours.__file__
        version = tf_keras.__version__ if library else keras.__version__
        pytest.fail(
            f"{library or 'Keras'} {version} changed {attributes}:\n"
            f"mend {names} in {file}\n{type(error).__name__}: {error}"
        )


def test_every_function_is_checked() -> None:
    checked = {name for names in CHECKS for name in re.findall(r"\w+", names)} - {"tf_keras"}
    assert checked == {*ours.__all__, *theirs.__all__}


def test_the_versions_are_those_that_were_looked_at() -> None:
    """A newer version may pass the checks above; then change the number in the docstring."""
    short = ".".join(keras.__version__.split(".")[:2])
    assert f"Keras {short}" in ours.__doc__
    assert f"KerasCV {'.'.join(keras_cv.__version__.split('.')[:2])}" in ours.__doc__
    assert f"tf_keras {'.'.join(tf_keras.__version__.split('.')[:2])}" in theirs.__doc__


def private_uses(path: Path) -> list[str]:
    """Where a file uses a private name that it does not define itself."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    own = {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    own |= {ast.unparse(node.target) for node in nodes if isinstance(node, ast.AnnAssign)}
    attributes = [node for node in nodes if isinstance(node, ast.Attribute)]
    own |= {node.attr for node in attributes if isinstance(node.ctx, ast.Store) and on_self(node)}
    found = [(node, node.attr) for node in attributes]
    for node in nodes:
        if isinstance(node, ast.Call) and re.search(r"attr(__)?$", ast.unparse(node.func)):
            texts = (part for part in ast.walk(node.args[1]) if isinstance(part, ast.Constant))
            if (text := next(texts, None)) and ast.unparse(node.args[0]) != "self":
                found.append((node, text.value))
        elif (isinstance(node, ast.ImportFrom) and ".src" in (node.module or "")) or (
            isinstance(node, ast.Constant) and re.match(r"(tf_)?keras\.src", str(node.value))
        ):
            found.append((node, "_src"))
    return [
        f"{path}:{node.lineno}: {ast.unparse(node)}"
        for node, name in found
        if str(name).startswith("_") and not name.endswith("__")
        if name not in own | NOT_OF_KERAS
    ]


def on_self(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")


def test_no_other_file_uses_a_private_attribute() -> None:
    files = [path for path in SOURCES.rglob("*.py") if path not in INTERNALS]
    assert [use for path in files for use in private_uses(path)] == []


@pytest.mark.parametrize(
    "text",
    [
        "layer._inbound_nodes",
        "self.model._compile_config = 1",
        "getattr(layer, '_call_context_args', ())",
        "getattr(layer, f'_{name}')",
        "object.__setattr__(optimizer, '_apply_weight_decay', update)",
        "from keras.src.utils import file_utils",
        "class A(keras.Model):\n    def f(self):\n        return self._functional",
    ],
)
def test_a_private_attribute_is_found(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text(text)
    assert len(private_uses(path)) == 1
