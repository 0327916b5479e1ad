"""Print what the product looks like: sizes, names that mean two things, and the paths through it (``make shape``)."""

from __future__ import annotations

from shape.paths import measured
from shape.source import duplicate_names, files, median_lines


def main() -> None:
    """Print all of it."""
    every = files()
    longest = max(every, key=lambda file: file.lines)
    print(f"product Python files   {len(every)}")
    print(f"median lines           {median_lines(every):.0f}")
    print(f"longest file           {longest.lines} lines, {longest.path}")
    for package in dict.fromkeys(file.package for file in every):
        of = [file for file in every if file.package == package]
        print(f"  {package:<20} {len(of):>4} files, median {median_lines(of):.0f}")
    duplicates = duplicate_names(every)
    print(f"names defined twice    {len(duplicates)}")
    for name, paths in duplicates.items():
        print(f"  {name}: {', '.join(paths)}")
    for kind in ("completion", "training", "evaluation"):
        path = measured(kind)
        back = "" if path.returns is None else f", {path.returns} returns to a file that was left"
        print(f"path of a {kind}: {len(path.files)} files, {len(path.values)} value types{back}")
        for file in path.files:
            print(f"  {file}")
        print(f"  values: {', '.join(path.values)}")


if __name__ == "__main__":
    main()
