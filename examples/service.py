"""A bundle as an HTTP service: python service.py BUNDLE [PORT]; curl --data-binary @photo.jpg 127.0.0.1:8000"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from samdeploy import Classifier, ImageError, SamdeployError

LARGEST = 32 << 20  # bytes of an encoded image


class Service(BaseHTTPRequestHandler):
    timeout = 30  # seconds that a client may be silent

    def do_GET(self) -> None:  # for whoever watches it
        return self.answer(200, {"classes": len(classifier.classes)})

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            return self.answer(411, {"error": "no Content-Length found; send the image's bytes in one piece"})
        if len(length) > 20 or int(length) > LARGEST:  # Python refuses to read numbers of thousands of digits
            return self.answer(413, {"error": f"Content-Length {length[:20]} found, at most {LARGEST} bytes expected"})
        try:
            found = classifier.predict(self.rfile.read(int(length)))  # one classifier serves all threads
        except ImageError as error:
            return self.answer(400, {"error": str(error)})
        return self.answer(200, found.to_json())

    def answer(self, status: int, content: dict[str, object]) -> None:
        body = json.dumps(content, ensure_ascii=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(ThreadingHTTPServer):
    request_queue_size = 128  # clients that connect at the same moment

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)  # a client that hung up or fell silent is no error


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3) or (len(sys.argv) == 3 and not sys.argv[2].isdecimal()):
        sys.exit(__doc__)
    address = ("127.0.0.1", int(sys.argv[2]) if len(sys.argv) > 2 else 8000)
    try:
        with Classifier.open(sys.argv[1]) as classifier, Server(address, Service) as server:
            print(f"http://127.0.0.1:{server.server_port}", flush=True)
            server.serve_forever()
    except KeyboardInterrupt:
        print("stopped")
    except (SamdeployError, OSError, OverflowError) as error:  # no such bundle; a port that is taken or none
        sys.exit(f"service.py: {error}")
