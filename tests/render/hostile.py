"""Names that want to be more than names."""

NAMES = [
    "\x1b[31mred\x1b[0m",
    "a\nb\rc\td",
    "\x9b2J",
    "\u202eright to left\u2066",
    "\u200bzero\u200ewidth\ufeff",
    "[bold red]markup[/bold red]",
    "[/]",
    ":smile:",
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</details></div><style>*{display:none}</style>",
    "&lt;&amp;",
    "../../etc/passwd",
    "\ud800",
    "\U0001f600 層 é",
    "x" * 5000,
    "\x00",
    "{0..1}",
    "]]>",
    "",
]
CONTROLS = "".join(map(chr, [*range(0x20), *range(0x7F, 0xA0), 0x200B, 0x200E, 0x202E, 0x2066, 0xFEFF]))
