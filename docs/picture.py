"""Make docs/report.png from a demo's report: `python docs/picture.py demo/1/report.html` (needs Debian's chromium)."""

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

WIDTH, HEIGHT = 1100, 6600
LEFT, RIGHT = (60, 0, 1040, 1180), (60, 3250, 1040, 4430)  # act one's summary; its canary and the next act
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--hide-scrollbars"]


def main(report: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        size = [f"--window-size={WIDTH},{HEIGHT}", f"--user-data-dir={folder}", f"--screenshot={shot}"]
        subprocess.run(["chromium", *FLAGS, *size, report.absolute().as_uri()], check=True, capture_output=True)
        page = Image.open(shot).convert("RGB")
    left, right = page.crop(LEFT), page.crop(RIGHT)
    both = Image.new("RGB", (left.width + right.width, left.height))
    both.paste(left, (0, 0))
    both.paste(right, (left.width, 0))
    both.resize((both.width * 7 // 10, both.height * 7 // 10)).save(
        Path(__file__).with_name("report.png"), optimize=True
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
