"""Data modules that download: from a local server in the formats of the real ones, and everything that goes wrong."""

import hashlib
import io
import json
import re
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import ase.io
import ase.units
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from ase.db import connect
from ase.md.verlet import VelocityVerlet
from helpers.programs import composed
from helpers.simulated import recorded
from hydra.utils import instantiate

from spk_dt import properties
from spk_dt.data import download as download_module
from spk_dt.data.download import download, unpack
from spk_dt.data.dtegnn import DTEGNN
from spk_dt.data.md17 import MOLECULES, MD17Trajectory
from spk_dt.trajectories.database import read_trajectories

KCAL_PER_MOL = 4184.0 / 6.02214076e23 / 1.602176634e-19  # eV
BY_HAND = "Do it by hand."


@pytest.fixture(scope="module")
def server():
    """Serves what is in `files`, a dictionary from path to bytes; `behave` changes how."""
    state = SimpleNamespace(files={}, behave={}, asked=[])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            path = self.path.partition("?")[0]
            state.asked.append(path)
            body, behaviour = state.files.get(path), state.behave.get(path)
            if body is None or behaviour == "error":
                self.send_error(500 if behaviour == "error" else 404)
                return
            self.send_response(202 if behaviour == "challenge" else 200)
            body = b"" if behaviour == "challenge" else body
            if behaviour != "no length":
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if behaviour == "break off" else body)

        def log_message(self, *arguments):
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{httpd.server_port}"
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield state
    httpd.shutdown()
    httpd.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def _fresh(server, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    server.files.clear()
    server.behave.clear()
    server.asked.clear()


@pytest.fixture(scope="module")
def ethanol():
    """Frames of a molecule of the composition of ethanol, with a potential that it has not."""
    atoms = ase.build.molecule("CH3CH2OH")
    atoms.calc = EMT()
    atoms.set_velocities(np.random.default_rng(0).normal(0.0, np.sqrt(0.02 / atoms.get_masses())[:, None], (9, 3)))
    return recorded(VelocityVerlet(atoms, 0.5 * ase.units.fs), 150)


def npz(frames):
    """The file of MD17."""
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        z=frames[0].numbers.astype(np.uint8),
        R=np.array([atoms.positions for atoms in frames]),
        E=np.array([[atoms.get_potential_energy()] for atoms in frames]) / KCAL_PER_MOL,
        F=np.array([atoms.get_forces() for atoms in frames]) / KCAL_PER_MOL,
        name="ethanol", theory="EMT", md5="0",
    )  # fmt: skip
    return buffer.getvalue()


def md17(server, path, molecule="ethanol", **kwargs):
    return MD17Trajectory(str(path), 4, molecule, url=f"{server.url}/npz/", num_workers=0, **kwargs)


def left(folder):
    """Files of a folder, but locks."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_md17_is_downloaded_and_converted(server, tmp_path, ethanol):
    server.files["/npz/md17_ethanol.npz"] = npz(ethanol)
    path = tmp_path / "data" / "ethanol.db"
    for _ in range(2):  # every process of a run calls it
        md17(server, path).prepare_data()
    assert server.asked == ["/npz/md17_ethanol.npz"]
    assert left(path.parent) == ["ethanol.db"]
    database = connect(path)
    (record,) = read_trajectories(database.metadata, str(path))
    assert (record.length, record.timestep_fs, record.velocities) == (151, 0.5, "central differences")
    for row, atoms in zip(database.select(sort="id"), ethanol, strict=True):
        np.testing.assert_allclose(row.positions, atoms.positions, atol=1e-12)
        np.testing.assert_allclose(row.data["energy"], atoms.get_potential_energy(), rtol=1e-7)
        np.testing.assert_allclose(row.data["forces"], atoms.get_forces(), rtol=1e-7, atol=1e-9)
        velocities = atoms.get_velocities() * ase.units.fs
        np.testing.assert_allclose(row.data[properties.velocities], velocities, atol=1e-9)


def test_md17_takes_the_first_frames(server, tmp_path, ethanol):
    server.files["/npz/md17_ethanol.npz"] = npz(ethanol)
    path = tmp_path / "ethanol.db"
    md17(server, path, max_frames=20).prepare_data()
    assert len(connect(path)) == 20
    with pytest.raises(ValueError, match=r"made with .*'max_frames': 20.* not .*'max_frames': 30.*Remove it"):
        md17(server, path, max_frames=30).prepare_data()
    with pytest.raises(ValueError, match=r"made with .*'ethanol'.* not .*'uracil'"):
        md17(server, path, "uracil", max_frames=20).prepare_data()


def test_md17_that_is_cut_gives_several_trajectories(server, tmp_path, ethanol):
    server.files["/npz/md17_ethanol.npz"] = npz([*ethanol[:60], *ethanol[70:]])
    md17(server, tmp_path / "a.db", max_frames=100).prepare_data()
    records = read_trajectories(connect(tmp_path / "a.db").metadata, "a.db")
    assert [(record.name, record.length) for record in records] == [("md17_ethanol_0", 60), ("md17_ethanol_1", 40)]


def test_md17_of_another_molecule_is_refused(server, tmp_path, ethanol, database):
    server.files["/npz/md17_uracil.npz"] = npz(ethanol)
    with pytest.raises(ValueError, match=r"md17_uracil\.npz' is of C2H6O, but uracil is C4H4N2O2"):
        md17(server, tmp_path / "a.db", "uracil").prepare_data()
    assert not (tmp_path / "a.db").exists()
    with pytest.raises(ValueError, match=r"cluster\.db' is of H2Pd4, but ethanol is C2H6O"):
        md17(server, database).prepare_data()
    with pytest.raises(ValueError, match=r"data\.molecule='water' is not of MD17; choose aspirin"):
        md17(server, tmp_path / "a.db", "water")
    with pytest.raises(ValueError, match="at least three"):
        md17(server, tmp_path / "a.db", max_frames=2)


def test_files_of_md17_are_those_of_schnetpack():
    from schnetpack.datasets import MD17

    for molecule, (file, _) in MOLECULES.items():
        theirs = MD17("a.db", molecule, 1)
        assert theirs.datasets_dict[molecule] == file
        assert theirs.download_url == MD17Trajectory.URL


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ("missing", "404"),
        ("error", "500"),
        ("break off", r"broke off.*bytes"),
        ("challenge", r"broke off: 0 bytes came"),
    ],
)
def test_md17_that_cannot_be_downloaded(server, tmp_path, ethanol, behaviour, message):
    """Nothing is left; the next run begins anew; the message says how to do it by hand, and that way works."""
    if behaviour != "missing":
        server.files["/npz/md17_ethanol.npz"] = npz(ethanol)
    server.behave["/npz/md17_ethanol.npz"] = behaviour
    path = tmp_path / "a.db"
    with pytest.raises(ConnectionError, match=rf"npz/md17_ethanol\.npz'.*{message}") as error:
        md17(server, path).prepare_data()
    assert not path.exists()
    assert [file for file in tmp_path.rglob("*") if file.is_file() and file.suffix != ".lock"] == []
    place = re.search("put it there as '(.*)'", str(error.value))[1]
    (tmp_path / place).write_bytes(npz(ethanol))
    md17(server, path).prepare_data()
    assert len(server.asked) == 1
    assert left(tmp_path) == ["a.db", "md17_ethanol.npz"]  # what the user put there stays


def test_md17_without_a_server(tmp_path):
    with pytest.raises(ConnectionError, match=r"'http://127\.0\.0\.1:9/md17_ethanol\.npz' cannot be downloaded"):
        MD17Trajectory(str(tmp_path / "a.db"), 4, "ethanol", url="http://127.0.0.1:9").prepare_data()


def test_a_damaged_file_is_downloaded_again(server, tmp_path, ethanol):
    server.files["/npz/md17_ethanol.npz"] = npz(ethanol)[:-200]
    with pytest.raises(ValueError, match=r"md17_ethanol\.npz' is damaged or cut off"):
        md17(server, tmp_path / "a.db").prepare_data()
    server.files["/npz/md17_ethanol.npz"] = npz(ethanol)
    md17(server, tmp_path / "a.db").prepare_data()
    assert len(connect(tmp_path / "a.db")) == 151


def test_an_interrupted_conversion_goes_on_without_a_second_download(server, tmp_path, ethanol, monkeypatch):
    server.files["/npz/md17_ethanol.npz"] = npz(ethanol)
    path = tmp_path / "a.db"
    monkeypatch.setattr("spk_dt.trajectories.part_file.COMMIT_EVERY", 20)
    from spk_dt.data import md17 as module

    def interrupted(frames, timestep_fs):
        for index, frame in enumerate(recover(frames, timestep_fs)):
            if index == 70:
                raise KeyboardInterrupt
            yield frame

    recover = module.recover_velocities
    with monkeypatch.context() as patch:
        patch.setattr(module, "recover_velocities", interrupted)
        with pytest.raises(KeyboardInterrupt):
            md17(server, path).prepare_data()
    assert not path.exists()
    md17(server, path).prepare_data()
    assert server.asked == ["/npz/md17_ethanol.npz"]
    assert len(connect(path)) == 151
    assert left(tmp_path) == ["a.db"]
    md17(server, tmp_path / "b.db").prepare_data()
    for one, other in zip(connect(path).select(sort="id"), connect(tmp_path / "b.db").select(sort="id"), strict=True):
        np.testing.assert_array_equal(one.positions, other.positions)
        np.testing.assert_array_equal(one.data[properties.velocities], other.data[properties.velocities])


# ---- the authors' data


def archive(trajectories, folder="dataset/"):
    """The archive of the authors, with the files of a Mac beside it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for number, frames in trajectories.items():
            binary = io.BytesIO()
            ase.io.write(binary, frames, format="traj")
            step, inverse = 0.5 * ase.units.fs, np.linalg.inv(frames[0].cell.array)
            lines = [f"{x:.16E} {y:.16E} {z:.16E}" for a in frames for x, y, z in step * a.get_velocities() @ inverse]
            file.writestr(f"{folder}traj_{number}.traj", binary.getvalue())
            file.writestr(f"{folder}velall-{number}", "\n".join(lines) + "\n")
            file.writestr(f"__MACOSX/{folder}._traj_{number}.traj", b"junk")
        file.writestr(f"{folder}readme.txt", "about")
    return buffer.getvalue()


def figshare(server, files):
    """What figshare's interface says of files, and the files."""
    entries = []
    for number, (name, data) in enumerate(files.items()):
        server.files[f"/ndownloader/{number}"] = data
        md5 = hashlib.md5(data).hexdigest()
        entries.append(
            {
                "id": number,
                "name": name,
                "size": len(data),
                "is_link_only": False,
                "mimetype": "application/zip",
                "download_url": f"{server.url}/ndownloader/{number}",
                "supplied_md5": md5,
                "computed_md5": md5,
            }
        )
    server.files["/v2/articles/28498778/files"] = json.dumps(entries).encode()
    return entries


def published(server, path):
    return DTEGNN(str(path), 4, url=f"{server.url}/v2/articles/28498778/files?page_size=1000", num_workers=0)


@pytest.fixture(scope="module")
def crystals(crystal, make_trajectory):
    return {number: make_trajectory(crystal, 8, 0.5, number) for number in (1, 2, 11)}


@pytest.mark.parametrize("loose", [False, True])
def test_published_data_are_downloaded_and_converted(server, tmp_path, crystals, loose):
    data = archive(crystals, "" if loose else "dataset/")
    if loose:
        with zipfile.ZipFile(io.BytesIO(data)) as content:
            figshare(server, {name: content.read(name) for name in content.namelist() if "MACOSX" not in name})
    else:
        figshare(server, {"dataset.zip": data})
    path = tmp_path / "data" / "dtegnn.db"
    published(server, path).prepare_data()
    asked = len(server.asked)
    published(server, path).prepare_data()
    assert len(server.asked) == asked
    assert left(path.parent) == ["dtegnn.db"]
    database = connect(path)
    records = read_trajectories(database.metadata, str(path))
    assert [(r.name, r.length, r.timestep_fs, r.velocities) for r in records] == [
        (f"traj_{number}", 9, 0.5, "file") for number in (1, 2, 11)
    ]
    expected = [atoms for frames in crystals.values() for atoms in frames]
    for row, atoms in zip(database.select(sort="id"), expected, strict=True):
        np.testing.assert_allclose(row.data[properties.velocities], atoms.get_velocities() * ase.units.fs, atol=1e-12)
        np.testing.assert_allclose(row.data["forces"], atoms.get_forces(), atol=1e-12)


def damaged_archive(server, entries):
    server.files["/ndownloader/0"] = server.files["/ndownloader/0"][:-300]
    entries[0].update(size=len(server.files["/ndownloader/0"]), computed_md5="")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda s, e: s.files.pop("/ndownloader/0"), ConnectionError, "404"),
        (lambda s, e: s.behave.update({"/ndownloader/0": "break off"}), ConnectionError, "broke off"),
        (lambda s, e: s.behave.update({"/ndownloader/0": "challenge"}), ConnectionError, "broke off: 0 bytes"),
        (lambda s, e: e[0].update(size=3), ConnectionError, "3 were expected"),
        (lambda s, e: e[0].update(computed_md5="0" * 32), ValueError, "its MD5 is [0-9a-f]{32}, not 0{32}"),
        (lambda s, e: e[0].pop("name"), ValueError, "does not give a list of files"),
        (lambda s, e: e.clear(), ValueError, r"no traj_N\.traj with velall-N"),
        (damaged_archive, ValueError, r"dataset\.zip' is damaged"),
    ],
)
def test_published_data_that_cannot_be_had(server, tmp_path, crystals, change, error, message):
    """The database is not there; the message says how to do it by hand, and that way works; so does a second run."""
    data = archive(crystals)
    entries = figshare(server, {"dataset.zip": data})
    change(server, entries)
    server.files["/v2/articles/28498778/files"] = json.dumps(entries).encode()
    path = tmp_path / "a.db"
    with pytest.raises(error, match=message) as caught:
        published(server, path).prepare_data()
    assert "doi.org/10.6084/m9.figshare.28498778" in str(caught.value)
    assert not path.exists()
    place = re.search("put it there as '(.*)'", str(caught.value))[1]
    server.behave.clear()
    asked = len(server.asked)
    (tmp_path / place).write_bytes(data)
    published(server, path).prepare_data()
    assert len(server.asked) == asked
    assert left(tmp_path) == ["a.db", "a.zip"]
    (tmp_path / place).unlink()
    path.unlink()
    figshare(server, {"dataset.zip": data})
    published(server, path).prepare_data()
    assert left(tmp_path) == ["a.db"]


# ---- the two functions


def test_a_download_is_whole_or_not_there(server, tmp_path):
    data = np.random.default_rng(0).bytes(3_000_000)
    server.files["/a"] = data
    md5 = hashlib.md5(data).hexdigest()
    for behaviour in (None, "no length"):
        server.behave["/a"] = behaviour
        path = tmp_path / str(behaviour) / "a"
        download(f"{server.url}/a", path, BY_HAND, ("md5", md5.upper()), size=len(data))
        assert path.read_bytes() == data
        assert left(path.parent) == ["a"]
    server.files["/a"] = b"other"
    download(f"{server.url}/a", path, BY_HAND)  # a file that is there is kept
    assert path.read_bytes() == data
    with pytest.raises(ConnectionError, match=rf"cannot be downloaded.*{BY_HAND}"):
        download("gopher:nothing", tmp_path / "b", BY_HAND)
    assert not (tmp_path / "b").exists()


def test_an_interrupted_download_leaves_nothing(server, tmp_path, monkeypatch):
    server.files["/a"] = b"x" * 100

    def interrupt(*arguments, **keywords):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(
            download_module, "hashlib", SimpleNamespace(new=lambda *_, **__: SimpleNamespace(update=interrupt))
        )
        with pytest.raises(KeyboardInterrupt):
            download(f"{server.url}/a", tmp_path / "a", BY_HAND)
    assert left(tmp_path) == []
    download(f"{server.url}/a", tmp_path / "a", BY_HAND)
    assert (tmp_path / "a").stat().st_size == 100


@pytest.mark.parametrize("name", ["../traj_1.traj", "/absolute/traj_1.traj", "a/../../traj_1.traj"])
def test_names_that_lead_out_of_the_folder_are_refused(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr(name, "x")
    with pytest.raises(ValueError, match=r"is not below the archive"):
        unpack(tmp_path / "a.zip", tmp_path / "deep" / "out", re.compile(r"traj_\d+\.traj"), BY_HAND)
    assert not list(tmp_path.rglob("*.traj"))


def test_only_what_is_wanted_is_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        for name in ("x/one.txt", "two.txt", "x/three.dat", "__MACOSX/x/one.txt"):
            file.writestr(name, name)
    found = unpack(tmp_path / "a.zip", tmp_path / "out", re.compile(r".*\.txt"), BY_HAND)
    assert sorted(str(path.relative_to(tmp_path / "out")) for path in found) == ["two.txt", "x/one.txt"]


# ---- the configs


def test_md17_trains_as_data_of_an_experiment(server, tmp_path, ethanol, monkeypatch):
    """The config composes, and its windows replay the thermostat, which here does nothing."""
    monkeypatch.setenv("PWD", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    server.files["/npz/md17_ethanol.npz"] = npz(ethanol)
    overrides = [f"+data.url={server.url}/npz", "data.max_frames=140", "data.val_window=5", "data.num_val=0.3"]
    config = composed(
        "experiment=dt_egnn", "data=md17_trajectory", "data.molecule=ethanol", *overrides, "data.num_test=0.3"
    )
    assert config.data.datapath.endswith("/md17_ethanol.db")
    assert config.data.replay_kicks
    data = instantiate(config.data)
    data.prepare_data()
    data.setup()
    assert type(data.splitting).__name__ == "TimeBlockSplit"
    batch = next(iter(data.train_dataloader()))
    assert batch["forces_window"].shape[1:] == (4, 3)
    assert Atoms(batch["_atomic_numbers"][:9].numpy()).symbols.formula.count() == {"C": 2, "H": 6, "O": 1}


def test_published_data_train_as_data_of_an_experiment(server, tmp_path, crystal, make_trajectory, monkeypatch):
    monkeypatch.setenv("PWD", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    figshare(server, {"dataset.zip": archive({n: make_trajectory(crystal, 8, 0.5, n) for n in range(1, 8)})})
    url = f"+data.url={server.url}/v2/articles/28498778/files"
    config = composed(
        "experiment=dt_egnn_paper", "data=dtegnn", url, "data.val_window=5", "globals.max_rollout_length=3"
    )
    data = instantiate(config.data)
    data.prepare_data()
    data.setup()
    assert [len(part) for part in (data.train_idx, data.val_idx, data.test_idx)] == [45, 9, 9]


def test_a_checksum_of_another_file_is_refused(server, tmp_path):
    server.files["/b"] = b"some data"
    right = hashlib.sha256(b"some data").hexdigest()
    download(f"{server.url}/b", tmp_path / "right", BY_HAND, ("sha256", right))
    with pytest.raises(ValueError, match=f"its SHA256 is {right}, not 00. {BY_HAND}"):
        download(f"{server.url}/b", tmp_path / "wrong", BY_HAND, ("sha256", "00"))
    assert (tmp_path / "right").exists()
    assert not (tmp_path / "wrong").exists()


def test_an_archive_that_would_fill_the_disk_is_refused(tmp_path):
    bomb, sound = tmp_path / "bomb.zip", tmp_path / "sound.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("traj_1.traj", bytes(10**8))  # compresses a thousandfold
    with zipfile.ZipFile(sound, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("traj_1.traj", np.random.default_rng(0).bytes(10**6))
    pattern = re.compile(r"traj_\d+\.traj")
    with pytest.raises(ValueError, match="would unpack to 100000000 bytes"):
        unpack(bomb, tmp_path / "out", pattern, BY_HAND)
    assert not (tmp_path / "out").exists()
    assert [file.stat().st_size for file in unpack(sound, tmp_path / "out", pattern, BY_HAND)] == [10**6]
