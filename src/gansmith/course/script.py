"""A stand-alone training script of a run's recipe: the definitions it uses, as they stand, and one plain loop.

`definitions_of` collects functions and classes from this package's own source with all that they refer to, so the
script shows the very networks and losses that were trained.
"""

import ast
import functools
import inspect
import json
import re
from importlib import import_module, resources
from pathlib import Path
from typing import Any

from gansmith.config import Config
from gansmith.data.images import ImageSpec
from gansmith.data.clusters import edge_histograms
from gansmith.training.losses import OBJECTIVES
from gansmith.training.penalties import gradient_penalty, squared_gradient_norm
from gansmith.networks import NETWORKS
from gansmith.networks.layers import initialise, normalise_spectrally
from gansmith.networks.progressive import grow
from gansmith.training.optimizers import OPTIMIZERS
from gansmith.training.schedule import decay, ema_decay, ramp, adapted_factor

# What the template defines itself, or has no use for.
_GIVEN = {"Config"}
_PLAIN = {"Adam", "AdamW", "RMSprop", "SGD"}  # torch's own do for a script
_CHECKS = {"refuse_size", "refuse_widths", "refuse_unused", "refuse_misfits"}
# Techniques the plain loop carries; a script says which others it leaves out.
_CARRIED = (
    "conditioning", "g_conditioning", "d_conditioning", "clusters", "initialisation", "spectral_norm", "dropout",
    "g_dropout", "g_activation", "d_activation", "minibatch_stddev", "latent", "update", "real_target_low",
    "real_target_high", "fake_target_low", "fake_target_high", "label_flipping", "g_targets", "r1_gamma", "r2_gamma",
    "gradient_penalty", "penalty_boost", "burn_in", "penalty_every", "d_loss_target", "d_steps", "fresh_fakes",
    "momentum", "weight_decay", "clip_weights", "decay", "lr_decay_from", "lr_decay_factor", "ema",
)  # fmt: skip


def training_script(config: Config, spec: ImageSpec) -> str:
    """The text of a Python file that needs PyTorch, NumPy and Pillow, and trains this recipe on a small data set."""
    import jinja2

    objective = OBJECTIVES[config.objective]
    network = NETWORKS[config.network]
    has_slopes = config.r1_gamma > 0 or config.r2_gamma > 0
    wanted = {
        network: True,
        initialise: config.weight_init != "own",
        normalise_spectrally: config.spectral_norm,
        objective.d_loss: True,
        objective.g_loss: True,
        squared_gradient_norm: has_slopes,
        gradient_penalty: config.gradient_penalty > 0,
        OPTIMIZERS[config.g_optimizer]: True,
        OPTIMIZERS[config.d_optimizer]: True,
        decay: True,
        ramp: has_slopes and not config.d_loss_target,
        adapted_factor: config.d_loss_target > 0,
        ema_decay: config.ema > 0,
        grow: config.network == "progressive",
        edge_histograms: config.conditioning == "clusters",
    }
    imports, definitions = definitions_of([function for function, is_used in wanted.items() if is_used])
    template = (resources.files("gansmith.course") / "train.py.jinja").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    render = functools.partial(
        environment.from_string(template).render,
        config=config,
        spec=spec,
        imports=imports,
        definitions=definitions,
        network=_function(network).__name__,
        d_loss=objective.d_loss.__name__,
        g_loss=objective.g_loss.__name__,
        g_sees_real=objective.g_sees_real,
        g_optimizer=OPTIMIZERS[config.g_optimizer].__name__,
        d_optimizer=OPTIMIZERS[config.d_optimizer].__name__,
        has_targets=config.real_target_low < 1 or config.fake_target_high > 0 or config.label_flipping > 0,
        left_out=left_out(config),
    )
    text = render(chosen={})
    used = {name: value for name, value in config.as_dict().items() if re.search(rf"\bconfig\.{name}\b", text)}
    # JSON writes numbers and text as Python does, in the quotes this package uses.
    written = {name: str(value) if isinstance(value, bool) else json.dumps(value) for name, value in used.items()}
    return render(chosen=written)


def left_out(config: Config) -> list[str]:
    """Techniques in use that the plain loop does not carry."""
    found = [name for name in config.techniques() if name not in _CARRIED]
    return found + (["the discriminator's naming of classes"] if config.d_conditioning == "classifier" else [])


def _function(value: Any) -> Any:
    return value.func if isinstance(value, functools.partial) else value


def definitions_of(wanted: list[Any]) -> tuple[str, str]:
    """Import lines, and the source of these functions and of all they refer to within this package, callees first."""
    collector = _Collector()
    for value in wanted:
        function = _function(value)
        collector.collect(function.__module__, function.__name__)
    return collector.import_lines(), "\n\n\n".join(collector.sources)


class _Collector:
    """Walks from name to name through modules, and keeps each definition once."""

    def __init__(self) -> None:
        self.imports: dict[str, set[str]] = {}
        self.sources: list[str] = []
        self.names: dict[str, str] = {}
        self.modules: dict[str, tuple[str, dict[str, ast.stmt], dict[str, tuple[str, str]]]] = {}

    def collect(self, module: str, name: str) -> None:
        if name in _GIVEN | _CHECKS:
            return
        if name in _PLAIN:
            self.imports.setdefault("torch.optim", set()).add(name)
            return
        text, statements, imported = self.read(module)
        if name in imported:
            source, original = imported[name]
            if source.startswith("gansmith"):
                self.collect(source, original)
            else:
                self.imports.setdefault(source, set()).add(original)
            return
        if name not in statements or self.names.get(name) == module:
            return  # a builtin, a local name, or known already
        if name in self.names:
            raise RuntimeError(f"{module} and {self.names[name]} both define {name}; one script cannot hold both")
        self.names[name] = module
        statement = _Unchecked().visit(statements[name])
        for node in ast.walk(statement):
            if isinstance(node, ast.Name):
                self.collect(module, node.id)
        self.sources.append(_source(text, statement))

    def import_lines(self) -> str:
        """Of the standard library first; what the template imports itself is left to it."""
        lines = []
        for module, names in self.imports.items():
            if module not in ("torch", "pathlib"):
                listed = ", ".join(sorted(names - {""}))
                lines += [f"import {module}"] if "" in names else []
                lines += [f"from {module} import {listed}"] if listed else []
        return "\n".join(sorted(lines, key=lambda line: ("torch" in line, line)))

    def read(self, module: str) -> tuple[str, dict[str, ast.stmt], dict[str, tuple[str, str]]]:
        """A module's text, its definitions and its imports as {name: (module, original name or "")}."""
        if module not in self.modules:
            text = Path(inspect.getfile(import_module(module))).read_text(encoding="utf-8")
            statements: dict[str, ast.stmt] = {}
            imported: dict[str, tuple[str, str]] = {}
            for statement in ast.parse(text).body:
                if isinstance(statement, ast.FunctionDef | ast.ClassDef):
                    statements[statement.name] = statement
                elif isinstance(statement, ast.Assign | ast.AnnAssign):
                    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
                    statements |= {target.id: statement for target in targets if isinstance(target, ast.Name)}
                elif isinstance(statement, ast.ImportFrom):
                    imported |= {
                        alias.asname or alias.name: (statement.module or "", alias.name) for alias in statement.names
                    }
                elif isinstance(statement, ast.Import):
                    imported |= {alias.asname or alias.name: (alias.name, "") for alias in statement.names}
            self.modules[module] = text, statements, imported
        return self.modules[module]


class _Unchecked(ast.NodeTransformer):
    """Leaves out the checks of choices that were made long ago."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        called = node.value.func if isinstance(node.value, ast.Call) else None
        return None if isinstance(called, ast.Name) and called.id in _CHECKS else node


def _source(text: str, statement: ast.stmt) -> str:
    """The lines of a definition that are still in its tree, comments and blank lines included."""
    first = min([statement.lineno, *(decorator.lineno for decorator in getattr(statement, "decorator_list", []))])
    lines = text.splitlines()[first - 1 : statement.end_lineno]
    checks = re.compile(rf"^\s*(?:{'|'.join(_CHECKS)})\(.*\)$")
    return "\n".join(line for line in lines if not checks.match(line))
