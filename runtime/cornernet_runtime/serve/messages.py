"""What goes between the process that takes requests and the replicas: small records, pictures as they were sent."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Question:
    """A picture to detect in.

    Attributes:
        picture: Encoded, in a format that OpenCV reads.
        score: Least score of what is reported and drawn.
        draw: Whether the annotated picture is wanted, a JPEG, in place of JSON.
    """

    picture: bytes | bytearray
    score: float
    draw: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What a replica says.

    Attributes:
        content: The body of the response; None where the picture could not be used.
        problem: Why it could not.
        fault: Whether that is the service's fault, not the picture's.
        batch: Pictures that were detected in together, this one included.
        first: Whether this one was the first of them, so that each batch can be counted once.
        decode_s: Seconds that decoding this picture took.
        detect_s: Seconds that detecting in the whole batch took.
    """

    content: bytes | None
    problem: str = ""
    fault: bool = False
    batch: int = 0
    first: bool = False
    decode_s: float = 0.0
    detect_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a replica has opened.

    Attributes:
        name: Of the model.
        class_names: Of all classes.
        description: Model, precision, sizes and backend on one line.
        problem: Why it could not be opened; empty if it is.
    """

    name: str = ""
    class_names: tuple[str, ...] = ()
    description: str = ""
    problem: str = ""
