"""A small repository with tests of its own, of which some reach its code, some do not, and some cannot pass."""

from __future__ import annotations

from pathlib import Path

from support.own_repository import OwnRepository, module

PRICES = '''\
"""What things cost."""

SHIPPING = {"letter": 3, "parcel": 9}


def total(prices):
    """The sum of prices."""
    result = 0
    for price in prices:
        result += price
    return result


def shipped(prices, kind):
    """The sum with shipping."""
    return total(prices) + SHIPPING[kind]


def discounted(prices, percent):
    """Nobody tests this."""
    left = 100 - percent
    return total(prices) * left / 100
'''
TEST_PRICES = """\
import asyncio
import os
import socket
import subprocess
import unittest
from pathlib import Path

from shop.prices import shipped, total


def test_total():
    assert total([1, 2]) == 3
    assert total([]) == 0


def test_shipped(tmp_path):
    (tmp_path / "note.txt").write_text("x")
    Path("written-into-the-repository.txt").write_text("x")
    assert shipped([1, 2], "parcel") == 12


class ShippedTest(unittest.TestCase):
    def test_letter(self):
        self.assertEqual(shipped([1], "letter"), 4)


def test_a_loop_can_be_had():
    assert asyncio.run(asyncio.sleep(0, "done")) == "done"


def test_a_process_cannot():
    subprocess.run(["true"], check=True)


def test_the_network_cannot():
    socket.create_connection(("127.0.0.1", 9))


def test_the_environment_is_not_the_users():
    assert "PEFT_DAEMON_TEST" not in os.environ
    assert not Path("/etc/passwd").exists()
    assert not Path("untracked.py").exists()
"""
STEADY = 5
"""Tests that pass in a sandbox; two do not."""
ARGUMENTS = ("--disable-plugin-autoload",)
"""What is installed here besides pytest makes its start slow."""


def shop(root: Path) -> OwnRepository:
    """With ``shop/prices.py`` as the newest file, ``shop/untested.py`` before it, and others to learn from."""
    repository = OwnRepository(root)
    repository.commit({f"shop/other{number}.py": module(number) for number in range(16)}, when=1_600_000_000)
    repository.commit({"shop/__init__.py": "", "tests/test_prices.py": TEST_PRICES}, when=1_600_000_000)
    repository.commit({"shop/untested.py": module(16)}, when=1_650_000_000)
    repository.commit({"shop/prices.py": PRICES}, when=1_700_000_000)
    repository.write("untracked.py", "x = 1\n")
    return repository
