"""The eight lessons: what to read, what to do, and what decides that the effect was seen."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

# What the pair starts with: fields of Config, and how many training points there are (0: new ones in every step).
START: dict[str, Any] = {
    "objective": "non-saturating",
    "g_lr": 0.001,
    "d_lr": 0.001,
    "d_steps": 1,
    "r1_gamma": 0.0,
    "gradient_penalty": 0.0,
    "label_smoothing": 0.0,
    "instance_noise": 0.0,
    "ema": 0.0,
    "conditioning": "none",
    "points": 0,
}
RESTARTS = ("conditioning",)  # the others change while it trains
OBJECTIVES = ("non-saturating", "minimax", "least-squares", "hinge", "wasserstein", "relativistic")  # offered

Check = tuple[str, Literal["<=", ">="], float]


@dataclass(frozen=True)
class Step:
    """One thing to do and one thing that then happens.

    Attributes:
        text: what to know before, at most 60 words.
        do: what the button says.
        see: what happens, in one sentence.
        checks: measures of `toy.measure` that must all hold for the effect to be seen.
        within: training steps in which it is seen.
        choices: what the button sets, as in `toy.START`.
        restarts: whether it begins with a new pair, which has all other choices of START.
    """

    text: str
    do: str
    see: str
    checks: tuple[Check, ...]
    within: int
    choices: Mapping[str, Any] = field(default_factory=dict)
    restarts: bool = False


@dataclass(frozen=True)
class Lesson:
    """A lesson of two or three steps.

    Attributes:
        name: of its address.
        digits: recipe and choices of the same experiment on digits.
        digits_text: what to look for there.
    """

    name: str
    title: str
    steps: tuple[Step, ...]
    digits: tuple[str, Mapping[str, Any]]
    digits_text: str


LESSONS = (
    Lesson(
        "what-d-sees",
        "What D sees",
        (
            Step(
                "Grey points are real, orange ones come from the generator G. The discriminator D gives every place of "
                "the plane a probability of being real: blue is real, red is fake. First G stands still and D "
                "learns alone.",
                "Train D alone",
                "The plane turns blue along the ring and red where G's points are.",
                (("d_real", ">=", 0.9), ("d_fake", "<=", 0.1)),
                600,
                {"g_lr": 0.0},
                restarts=True,
            ),
            Step(
                "An arrow shows what G's loss asks of each generated point: to go where D finds it more real. G never "
                "sees a real point; all it learns comes through these arrows.",
                "Let G follow",
                "The orange points walk along their arrows onto the ring.",
                (("modes", ">=", 6), ("quality", ">=", 0.3)),
                4000,
                {"g_lr": 0.003, "d_lr": 0.003},
            ),
        ),
        ("mlp-small", {}),
        "Watch the sample grid: noise turns into strokes, then into digits, although G is never shown one.",
    ),
    Lesson(
        "vanishing-gradients",
        "Vanishing gradients",
        (
            Step(
                "In the first GANs, G minimises log(1 - D(G(z))). Where D is sure that a point is fake, this "
                "curve is flat. Let D become sure while G stands still, and watch the arrows.",
                "Minimax loss, D alone",
                "D wins, and the arrows shrink to almost nothing: G would learn nothing now.",
                (("d_fake", "<=", 0.01), ("gradient", "<=", 0.02)),
                1000,
                {"objective": "minimax", "g_lr": 0.0, "d_lr": 0.005},
                restarts=True,
            ),
            Step(
                "The non-saturating loss, -log D(G(z)), has its minimum at the same place, but its gradient is largest "
                "where D is sure. D has not changed; only G's loss does.",
                "Non-saturating loss",
                "The arrows are back at once.",
                (("gradient", ">=", 5.0),),
                40,
                {"objective": "non-saturating"},
            ),
            Step(
                "With arrows to follow, G can learn again, though D was far ahead.",
                "Let G learn",
                "The points move to the ring.",
                (("modes", ">=", 5),),
                4000,
                {"g_lr": 0.002, "d_lr": 0.002},
            ),
        ),
        ("mlp-small", {"objective": "minimax"}),
        "With the minimax loss the gradient norm of G falls near zero as soon as D is sure.",
    ),
    Lesson(
        "collapse",
        "Collapse and its cure",
        (
            Step(
                "The ring has eight modes. Nothing in the loss asks G to find them all: a few good points satisfy D's "
                "opinion of the moment. Here G learns much faster than D.",
                "A fast G",
                "All points gather in one place and jump from mode to mode as D learns: mode collapse.",
                (("modes", "<=", 1), ("quality", ">=", 0.5)),
                4000,
                {"g_lr": 0.005, "d_lr": 0.0005},
                restarts=True,
            ),
            Step(
                "The cure keeps D ahead and smooth: D learns faster than G, and R1, a penalty on D's gradient at real "
                "points, leaves no cliffs on which all points gather.",
                "Slower G, faster D, R1",
                "The points spread, and all eight modes are found.",
                (("modes", ">=", 8), ("quality", ">=", 0.4)),
                4000,
                {"g_lr": 0.002, "d_lr": 0.005, "r1_gamma": 0.1},
            ),
        ),
        ("mlp-small", {"g_lr": 0.002, "d_lr": 0.00005}),
        "The sample grid shows the same few digits over and over; the run says that it collapsed.",
    ),
    Lesson(
        "r1",
        "R1: a smoother D",
        (
            Step(
                "Without a penalty D becomes as steep as it can at the edge of the data. Steep means large and erratic "
                "gradients for G. Watch the gradient norm of D at the real points.",
                "Train without R1",
                "The field has sharp edges; the gradient norm at real points is large.",
                (("d_gradient", ">=", 10),),
                3000,
                {"g_lr": 0.0002, "d_lr": 0.005},
                restarts=True,
            ),
            Step(
                "R1 adds the squared gradient at real points to D's loss. D may still tell real from fake, but only "
                "gently. It also lets G and D come to rest where G is right.",
                "Turn on R1",
                "The field fades to soft hills, and the gradient norm falls below a third.",
                (("d_gradient", "<=", 3),),
                3000,
                {"r1_gamma": 1.0},
            ),
        ),
        ("mlp-small", {"r1_gamma": 1.0}),
        "Compare the gradient norms and the losses with a run without R1.",
    ),
    Lesson(
        "ema",
        "Oscillation and the average of weights",
        (
            Step(
                "G and D chase each other. With large learning rates the points circle around the ring instead of "
                "resting on it: each move of G is answered by D, and so on.",
                "Large learning rates",
                "The points find the ring and never come to rest on it.",
                (("modes", ">=", 7), ("motion", ">=", 0.05)),
                4000,
                {"g_lr": 0.003, "d_lr": 0.003},
                restarts=True,
            ),
            Step(
                "The moving average of G's weights is a generator too. What swings around an answer is averaged to it. "
                "Its points are drawn in green; it costs next to nothing and changes nothing in training.",
                "Show the average",
                "The green points stand much stiller than the orange ones, and more of them are on the ring.",
                (("ema_calm", ">=", 4.0), ("ema_modes", ">=", 7)),
                4000,
                {"ema": 0.05},
            ),
        ),
        ("mlp-small", {"ema": 0.05, "g_lr": 0.001, "d_lr": 0.001}),
        "Samples are drawn with the average; without it the grid flickers from one frame to the next.",
    ),
    Lesson(
        "conditioning",
        "Conditioning on labels",
        (
            Step(
                "So far G is unconditional: a point's colour says which label it should have, and the "
                "colours lie anywhere. G gives what its latent happens to mean.",
                "Train without labels",
                "Points find the ring, but a label's points are on any mode.",
                (("modes", ">=", 4), ("own_mode", "<=", 0.4)),
                3000,
                {},
                restarts=True,
            ),
            Step(
                "Now G gets the label as a second input, and D scores a point together with its label. A right point "
                "with the wrong label is a fake. Eight small problems are easier than one large one.",
                "Train with labels",
                "Each label's points go to its own mode, and none is missing.",
                (("own_mode", ">=", 0.8), ("modes", ">=", 8)),
                2000,
                {"conditioning": "labels"},
                restarts=True,
            ),
        ),
        ("mlp-small", {"conditioning": "labels"}),
        "The grid has one class in each column, and a class can be asked for.",
    ),
    Lesson(
        "overfitting",
        "Overfitting D",
        (
            Step(
                "First a good pair: D sees new real points in every step, and cannot tell G's points from them.",
                "Train a good pair",
                "The points lie on the ring, and D says about one half everywhere.",
                (("quality", ">=", 0.7), ("modes", ">=", 8)),
                5000,
                {"g_lr": 0.002, "d_lr": 0.005, "r1_gamma": 0.1},
                restarts=True,
            ),
            Step(
                "Now D gets sixteen real points, again and again, and G stands still. D can memorise them: these "
                "sixteen are real, all else is fake, also new real points that it has never seen. Its arrows would now "
                "lead G to sixteen dots.",
                "Sixteen training points",
                "D rejects new real points: it rates them far below the sixteen that it knows.",
                (("d_gap", ">=", 0.25),),
                4000,
                {"points": 16, "g_lr": 0.0, "r1_gamma": 0.0},
            ),
            Step(
                "Noise on everything that D sees turns sixteen dots into clouds, which cannot be memorised one by one. "
                "Augmentation does the same for images. More data is the other cure.",
                "Noise on D's inputs",
                "D treats new real points like the old ones again.",
                (("d_gap", "<=", 0.08),),
                4000,
                {"instance_noise": 0.15},
            ),
        ),
        ("mlp-small", {"limit_images": 500, "augment": "none"}),
        "Compare with the same run with --augment adaptive.",
    ),
    Lesson(
        "loss-curves",
        "Reading loss curves",
        (
            Step(
                "A falling loss means nothing by itself: each network's loss depends on the other. When D's loss goes "
                "to zero and G's climbs, D has won and G is lost, not trained.",
                "Let D win",
                "D's loss sinks to zero, G's rises, and the points are bad.",
                (("d_loss", "<=", 0.1), ("g_loss", ">=", 4)),
                1000,
                {"d_lr": 0.005, "g_lr": 0.00005},
                restarts=True,
            ),
            Step(
                "In good runs the losses hardly move. If D cannot tell real from fake it says one half everywhere; its "
                "loss is 2 ln 2 = 1.39, and G's is ln 2 = 0.69. Flat curves there, and good points, mean balance.",
                "A balanced pair",
                "D's loss settles near 1.39, while the points are good.",
                (("d_loss", ">=", 1.3), ("quality", ">=", 0.6), ("modes", ">=", 8)),
                5000,
                {"g_lr": 0.002, "d_lr": 0.005, "r1_gamma": 0.1},
                restarts=True,
            ),
        ),
        ("mlp-small", {"d_lr": 0.001, "g_lr": 0.0001}),
        "Read the loss curves beside the validation FD ratio: only the ratio says how good samples are.",
    ),
)
