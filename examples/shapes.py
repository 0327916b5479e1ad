"""A small file to try completions on: the body of Rectangle.area is the hole."""

import math
from dataclasses import dataclass


@dataclass
class Circle:
    radius: float

    def area(self) -> float:
        return math.pi * self.radius**2

    def perimeter(self) -> float:
        return 2 * math.pi * self.radius


@dataclass
class Rectangle:
    width: float
    height: float

    def area(self) -> float:
        

    def perimeter(self) -> float:
        return 2 * (self.width + self.height)
