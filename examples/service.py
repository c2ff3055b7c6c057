"""An HTTP service: `python service.py BUNDLE`, then `curl "localhost:8000/?prompt=a+red+circle&seed=1" -o out.png`.

One pipeline serves all threads: each request gets the image that it would get alone. For many requests on a GPU, put
requests of one size into one call: see docs/service.md.
"""

from __future__ import annotations

import io
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import torch

import sdtrt


def server(bundle: str, port: int = 8000, steps: int = 20) -> ThreadingHTTPServer:
    """Load the engines once and listen; a thread for each request."""
    pipe = sdtrt.load(bundle)
    pipe.set_progress_bar_config(disable=True)

    class Images(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            generator = torch.Generator().manual_seed(int(query.get("seed", ["0"])[0]))
            image = pipe(query["prompt"][0], num_inference_steps=steps, generator=generator).images[0]
            png = io.BytesIO()
            image.save(png, "png")
            self.send_response(200)
            self.send_header("Content-Type", "image/png")
            self.end_headers()
            self.wfile.write(png.getvalue())

    return ThreadingHTTPServer(("localhost", port), Images)


if __name__ == "__main__":
    server(sys.argv[1]).serve_forever()
