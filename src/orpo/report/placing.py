"""Labels beside points that cover neither each other nor, where there is room, a point: places and sizes enter, boxes leave."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

GAP = 8.0
ROUNDS = 4


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle of the drawing."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: Box) -> float:
        """The area that both cover."""
        wide = min(self.right, other.right) - max(self.left, other.left)
        high = min(self.bottom, other.bottom) - max(self.top, other.top)
        return wide * high if wide > 0 and high > 0 else 0.0

    def lies_in(self, other: Box) -> bool:
        """True when no part of it lies outside `other`."""
        return self.left >= other.left and self.right <= other.right and self.top >= other.top and self.bottom <= other.bottom


def label_boxes(
    points: Sequence[tuple[float, float]], widths: Sequence[float], *, height: float, within: Box, obstacles: Sequence[Box]
) -> tuple[Box, ...]:
    """A box for the label of each point, inside `within`, near its point, off the other labels first and off `obstacles` second.

    One label after the other takes its best place, then each moves again as long as that helps, ROUNDS times at most.
    """
    order = sorted(range(len(points)), key=lambda i: points[i][1])
    boxes: dict[int, Box] = {}
    for _ in range(ROUNDS):
        before = dict(boxes)
        for i in order:
            taken = [box for k, box in boxes.items() if k != i]
            boxes[i] = min(_candidates(points[i], widths[i], height, within), key=lambda one: _cost(one, taken, obstacles))[0]
        if boxes == before:
            break
    return tuple(boxes[i] for i in range(len(points)))


def _candidates(point: tuple[float, float], width: float, height: float, within: Box) -> list[tuple[Box, float]]:
    """Boxes at the right and the left of the point, and above and below it, each with its distance; those inside `within`."""
    x, y = point
    found = []
    for step in range(-26, 27):
        middle = y + step * height / 2
        for left in (x + GAP, x - GAP - width, x - width / 2, x + 4 * GAP, x - 4 * GAP - width):
            box = Box(left, middle - height / 2, left + width, middle + height / 2)
            found.append((box, abs(middle - y) + max(abs(left + width / 2 - x) - width / 2, 0.0)))
    inside = [(box, distance) for box, distance in found if box.lies_in(within)]
    return inside or [_moved_inside(found[len(found) // 2][0], within)]


def _moved_inside(box: Box, within: Box) -> tuple[Box, float]:
    """A label too wide for any place beside its point: moved to the left as far as it must be."""
    width, height = box.right - box.left, box.bottom - box.top
    left = max(within.left, min(box.left, within.right - width))
    top = max(within.top, min(box.top, within.bottom - height))
    return Box(left, top, left + width, top + height), 0.0


def _cost(candidate: tuple[Box, float], taken: Iterable[Box], obstacles: Iterable[Box]) -> float:
    box, distance = candidate
    return 100 * sum(map(box.overlap, taken)) + 8 * sum(map(box.overlap, obstacles)) + distance
