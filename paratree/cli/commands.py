"""One function a command: open, run a verb, print what render makes of it, return the exit code."""

from __future__ import annotations

import sys

from paratree.cli.console import DONE, NOTHING, TROUBLE, complain, is_rich, print_rich, width
from paratree.cli.sources import open_source, path_or_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from paratree.core.tree import ParamTree


def run_show(options: argparse.Namespace) -> int:
    """List a tree."""
    from paratree.verbs.show import show

    with open_source(options.source) as tree:
        listing = show(
            tree,
            select=options.select,
            kind=options.kind,
            depth=options.depth,
            sort=options.sort,
            fold=not (options.all or options.json),
        )
    if listing.nothing is not None:
        return complain(listing.nothing, status=NOTHING)
    if options.json:
        from paratree.render import json

        print(json.listing(listing), end="")
    elif is_rich():
        from paratree.render import terminal

        print_rich(terminal.table(listing, hints=True))
    else:
        from paratree.render import text

        print("\n".join(text.lines(listing)))
    return DONE


def run_get(options: argparse.Namespace) -> int:
    """Print or write values."""
    from paratree.render import json, results
    from paratree.verbs.get import get, write_npy

    with open_source(options.source) as tree:
        found = get(tree, options.name, options.slice, dtype=options.dtype)
    if found.changed:
        changed = f"{found.changed} of {found.values.size} values changed"
        print(f"paratree: {changed} in the cast from {found.param.dtype} to {found.dtype}", file=sys.stderr)
    if options.output is not None:
        write_npy(found, options.output, force=options.force)
        print(f"{options.output}: {results.values_head(found)}", file=sys.stderr)
    elif options.json:
        print(json.values(found), end="")
    else:
        print("\n".join(results.values(found, width=width())))
    return DONE


def run_ties(options: argparse.Namespace) -> int:
    """List tied groups."""
    from paratree.render import json, results
    from paratree.verbs.ties import ties

    with open_source(options.source) as tree:
        found = ties(tree)
    print(json.ties(found) if options.json else "\n".join(results.ties(found)) + "\n", end="")
    return DONE if found else NOTHING


def run_spectrum(options: argparse.Namespace) -> int:
    """Print singular values and what follows from them."""
    from paratree.render import spectrum as render
    from paratree.verbs.get import param_of, placed
    from paratree.verbs.spectrum import EXACT_BELOW, spectrum

    exact_below = EXACT_BELOW if options.exact_below is None else options.exact_below
    with open_source(options.source) as tree:
        param = param_of(tree, options.name)
        with placed(tree, param):
            found = spectrum(param, exact_below=exact_below, seed=options.seed)
        source = tree.source
    if options.json:
        print(render.json(found, source), end="")
    else:
        print("\n".join(render.lines(found, width=width())))
    return DONE


def run_stats(options: argparse.Namespace) -> int:
    """Describe values."""
    from paratree.render import progress
    from paratree.render import stats as render
    from paratree.verbs.stats import stats

    with open_source(options.source) as tree, progress.bar("reading") as update:
        found = stats(
            tree, options.select, kind=options.kind, histogram=not options.moments, target=options.target,
            progress=update,
        )  # fmt: skip
    found = found if options.by is None else found.by(options.by)
    found = found if options.sort is None else found.sorted(options.sort)
    if options.json:
        print(render.as_json(found), end="")
    elif is_rich():
        print_rich(render.table(found, hints=True))
    else:
        print("\n".join(render.lines(found)))
    return DONE


def run_diff(options: argparse.Namespace) -> int:
    """Compare two sources."""
    from paratree.render import diff as render
    from paratree.render import progress
    from paratree.verbs.diff import diff

    initial = None if options.initial is None else open_source(options.initial)
    with open_source(options.a) as a, open_source(options.b) as b, progress.bar("comparing") as update:
        found = diff(
            a, b, select=options.select, kind=options.kind, rtol=options.rtol, atol=options.atol,
            equal_nan=options.equal_nan, rename=dict(options.map or ()), strip=options.strip_prefix or (),
            initial=initial, progress=update,
        ).sorted(options.sort)  # fmt: skip
    if options.json:
        print(render.as_json(found), end="")
    elif is_rich():
        print_rich(render.table(found, everything=options.all, hints=True))
    else:
        print("\n".join(render.lines(found, everything=options.all)))
    return DONE if found.same else TROUBLE if found.is_undecided else NOTHING


def run_check(options: argparse.Namespace) -> int:
    """Check what must hold."""
    from paratree.render import check as render
    from paratree.render import progress
    from paratree.verbs.check import check

    other = None if options.same_as is None else open_source(options.same_as)
    with open_source(options.source) as tree, progress.bar("reading") as update:
        found = check(
            tree, no_nan=options.no_nan, no_inf=options.no_inf, max_abs=options.max_abs,
            finite_in=options.finite_in, expect=options.expect, expect_tensors=options.expect_tensors,
            same_as=other, fingerprint=options.fingerprint, select=options.select,
            kind=options.kind, progress=update,
        )  # fmt: skip
    if options.json:
        print(render.as_json(found), end="")
    else:
        for line in render.lines(found, fingerprint=options.fingerprint is True):
            print(line)
        for line in render.messages(found):
            print(f"paratree: {line}", file=sys.stderr)
    return DONE if found.passed else NOTHING


def run_manifest(options: argparse.Namespace) -> int:
    """Write what is in a source, by content."""
    from paratree.render import manifest as render
    from paratree.render import progress
    from paratree.verbs.manifest import manifest

    with open_source(options.source) as tree, progress.bar("reading") as update:
        found = manifest(tree, select=options.select, kind=options.kind, progress=update)
    if options.output is None:
        print(found.text, end="")
    else:
        found.save(options.output, force=options.force)
        print(f"paratree: {render.written(found, options.output)}", file=sys.stderr)
    return DONE


def run_verify(options: argparse.Namespace) -> int:
    """Compare a source with a manifest."""
    from paratree.render import manifest as render
    from paratree.render import progress
    from paratree.verbs.verify import verify

    source = path_or_tree(options.source)
    with progress.bar("reading") as update:
        found = verify(
            source, options.manifest, select=options.select, kind=options.kind, progress=update
        )  # fmt: skip
    if options.json:
        print(render.as_json(found), end="")
    else:
        for line in render.lines(found):
            print(line)
        for line in render.messages(found):
            print(f"paratree: {line}", file=sys.stderr)
    return DONE if found.passed else NOTHING


def run_convert(options: argparse.Namespace) -> int:
    """Write a source to a file of another format, or a part of it."""
    from paratree.render import progress
    from paratree.render import save as render
    from paratree.verbs.save import save

    with open_source(options.source) as tree:
        changed = _changed(tree, options)
        with progress.bar("writing") as update:
            found = save(
                changed, options.output, format=options.format, ties=options.ties,
                shard_size=options.shard_size, like=options.like, force=options.force, verify=options.verify,
                dry_run=options.dry_run, progress=update,
            )  # fmt: skip
    if options.json:
        print(render.as_json(found), end="")
    else:
        for line in render.lines(found):
            print(f"paratree: {line}", file=sys.stderr)
    return DONE


def _changed(tree: ParamTree, options: argparse.Namespace) -> ParamTree:
    """Return what is to be written: each pattern fits names of the source, and prefixes come last."""
    from paratree.verbs.reading import selected

    for pattern in options.select or ():
        selected(tree, pattern)
    tree = selected(tree, options.select, options.kind)
    for pattern in options.drop or ():
        tree = tree.drop(pattern)
    tree = _cast(tree, options.dtype, options.cast or ())
    for prefix in options.strip_prefix or ():
        tree = _without_prefix(tree, prefix)
    for rules in (options.rename, options.rename_regex):
        tree = tree.rename(dict(rules)) if rules else tree
    if options.add_prefix:
        tree = tree.rename(lambda name: options.add_prefix + name)
        if options.add_prefix[-1].isalnum():
            _tell_of_dot("--add-prefix", options.add_prefix, next(iter(tree)))
    return tree.untie() if options.untie else tree


def _without_prefix(tree: ParamTree, prefix: str) -> ParamTree:
    from paratree.core.errors import NoSuchParamError, printable

    if not any(name.startswith(prefix) for name in tree):
        message = f"{printable(tree.source)}: no name begins with '{printable(prefix)}'"
        raise NoSuchParamError(prefix, tree, tree.source, message=message)
    left = next(name.removeprefix(prefix) for name in tree if name.startswith(prefix))
    if left.startswith((".", "/")):
        _tell_of_dot("--strip-prefix", prefix, left)
    return tree.rename(lambda name: name.removeprefix(prefix))


def _tell_of_dot(option: str, prefix: str, name: str) -> None:
    """Say what becomes of names, as a prefix is taken as it stands: without a dot at its end."""
    from paratree.core.errors import printable

    fact = f"{option} {printable(prefix)} makes names as '{printable(name)}'"
    print(f"paratree: {fact}; '{printable(prefix)}.' is the prefix with its dot", file=sys.stderr)


def _cast(tree: ParamTree, dtype: str | None, casts: Iterable[tuple[str, str]]) -> ParamTree:
    """Return what is cast, each name once: as the last pattern that fits it says, else to the dtype."""
    from paratree.verbs.reading import selected

    wanted = {} if dtype is None else dict.fromkeys(tree, dtype)
    for pattern, other in casts:
        fitting = selected(tree, pattern)
        wanted |= {tied: other for name in fitting for tied in tree.tied_with(name)}
    for each in dict.fromkeys(wanted.values()):
        names = {tree[name].name for name, chosen in wanted.items() if chosen == each}
        tree = tree.cast(each, lambda param, names=names: param.name in names)
    return tree


def run_formats(options: argparse.Namespace) -> int:
    """List the formats."""
    from paratree.render import json, results
    from paratree.verbs.formats import formats

    found = formats()
    if options.json:
        print(json.formats(found), end="")
    elif is_rich():
        from paratree.render import terminal

        print_rich(terminal.formats(found))
    else:
        print("\n".join(results.formats(found)))
    return DONE
