"""The shop: `serve` counts visits and queues them, `work` writes them down, `check` tells whether `serve` answers."""

import http.server
import os
import pathlib
import sys
import urllib.request

import psycopg2
import redis

GREETING = "welcome"
PASSWORD = pathlib.Path("/run/secrets/password").read_text()


def database():
    connection = psycopg2.connect(os.environ["DATABASE"], password=PASSWORD)
    connection.autocommit = True
    cursor = connection.cursor()
    cursor.execute("select pg_advisory_lock(1)")
    cursor.execute("create table if not exists visits (path text)")
    cursor.execute("select pg_advisory_unlock(1)")
    return cursor


class Shop(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/health":
            text = "well"
        elif self.path == "/written":
            cursor = database()
            cursor.execute("select count(*) from visits")
            text = str(cursor.fetchone()[0])
        else:
            cache = redis.Redis(os.environ["CACHE"])
            cache.rpush("queue", self.path)
            text = f"{GREETING} {cache.incr('visits')}"
        self.send_response(200)
        self.end_headers()
        self.wfile.write(text.encode() + b"\n")


def work():
    cache, cursor = redis.Redis(os.environ["CACHE"]), database()
    print("working", flush=True)
    while True:
        _, path = cache.blpop("queue")
        cursor.execute("insert into visits values (%s)", (path.decode(),))


match sys.argv[1]:
    case "serve":
        print("serving", flush=True)
        http.server.ThreadingHTTPServer(("", 8000), Shop).serve_forever()
    case "work":
        work()
    case "check":
        urllib.request.urlopen("http://localhost:8000/health", timeout=2)
