"""The page at /: an image in, classes and a map out, and what is known of the model."""

from __future__ import annotations

from importlib.resources import files
from importlib.util import find_spec

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from samdeploy.bundle import Bundle
from samdeploy.bundle.measured import MeasuredSplit
from samdeploy.certainty.rates import greatest_rate, least_rate
from samdeploy.serve.errors import RequestError
from samdeploy.serve.served import ServedModel

# Maps are drawn in matplotlib's colours.
HAS_COLOURS = find_spec("matplotlib") is not None
_FILES = {"index.html": "text/html", "page.css": "text/css", "page.js": "text/javascript"}
# Nothing from elsewhere, nothing within the page that is not one of its three files.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def page_routes() -> list[Route]:
    """The page and what it is made of."""
    return [Route("/", _file), Route("/page/{name}", _file)]


async def _file(request: Request) -> Response:
    name = request.path_params.get("name", "index.html")
    if name not in _FILES:
        raise RequestError(404, f"{name[:100]!r} found in the address; the page has {', '.join(_FILES)}")
    content = files("samdeploy.serve").joinpath("page", name).read_bytes()
    return Response(content, headers=_HEADERS, media_type=_FILES[name])


def _trained_on(bundle: Bundle) -> str:
    if bundle.is_imported:
        return "not known: the network was imported"
    return f"{bundle.data.name}, {bundle.data.counts.get('train', 0):,} images"


def card(model: ServedModel) -> dict[str, object]:
    """What the page says of a model: name, version, whether it is ready and has maps, and facts as [name, text]."""
    bundle, session = model.bundle, model.classifier.session
    size = bundle.spec.preprocessing
    facts = [
        ("network", bundle.spec.arch),
        (
            "engine",
            f"{session.backend}, {session.precision}, {session.device}, up to {model.batcher.batch} images at once",
        ),
        ("input", f"{size.width} x {size.height} pixels, {size.fit.replace('_', ' ')}"),
        ("classes", f"{len(bundle.spec.classes)}: {_few(bundle.spec.classes)}"),
        ("trained on", _trained_on(bundle)),
    ]
    if bundle.measured is not None:
        aside = "validation (perhaps trained on)" if bundle.is_imported else "validation"
        facts += [
            (f"top-1 on {what}", _accuracy(split))
            for what, split in (("test", bundle.measured.test), (aside, bundle.measured.val))
            if split is not None
        ]
    if bundle.rejection is not None:
        facts.append(
            (
                "rejects",
                f"answers below {100 * bundle.threshold:.1f} %: at most {bundle.rejection.bound:.1f} % of the others "
                f"are wrong, {bundle.rejection.coverage:.1f} % are answered (validation)",
            )
        )
    if bundle.spec.license:
        facts.append(("licence", bundle.spec.license))
    facts.append(("weights", f"SHA-256 {bundle.measured.weights_sha256}" if bundle.measured else "no record"))
    return {
        "name": model.name,
        "version": model.version,
        "ready": model.ready,
        "maps": HAS_COLOURS
        and (session.backend == "pytorch" or bool(bundle.select("cam_graph", backend=session.backend))),
        "facts": facts,
    }


def _accuracy(split: MeasuredSplit) -> str:
    right = round(split.top1 * split.images / 100)
    low, high = (100 * bound(right, split.images, 0.025) for bound in (least_rate, greatest_rate))
    return f"{split.top1:.2f} % of {split.images:,} images (95 % interval {low:.1f} to {high:.1f} %), as trained"


def _few(classes: tuple[str, ...]) -> str:
    return ", ".join(classes[:8]) + (", ..." if len(classes) > 8 else "")
