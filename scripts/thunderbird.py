"""Thunderbird without a window, for scripts that try mail programs. It needs Debian's thunderbird and libnss3."""

import base64
import ctypes
import json
import os
import signal
import socket
import struct
import subprocess
import threading
import time

NSS = threading.Lock()  # NSS has one profile open at a time


class Item(ctypes.Structure):
    """NSS's SECItem."""
    _fields_ = [("type", ctypes.c_uint), ("octets", ctypes.c_void_p), ("length", ctypes.c_uint)]

    @classmethod
    def of(cls, octets):
        return cls(0, ctypes.cast(ctypes.create_string_buffer(octets, len(octets)), ctypes.c_void_p), len(octets))


def encrypted(profile, texts):
    with NSS:
        return encrypted_alone(profile, texts)


def encrypted_alone(profile, texts):
    """Encrypts texts with the key of a Mozilla profile, which is made, as Thunderbird keeps names and passwords."""
    nss = ctypes.CDLL("libnss3.so")
    nss.PK11_GetInternalKeySlot.restype = ctypes.c_void_p
    if nss.NSS_InitReadWrite(f"sql:{profile}".encode()) != 0:
        raise RuntimeError("NSS cannot make the profile's key")
    try:
        slot = ctypes.c_void_p(nss.PK11_GetInternalKeySlot())
        if nss.PK11_NeedUserInit(slot):
            nss.PK11_InitPin(slot, None, b"")
        results = []
        for text in texts:
            key, plain, cipher = Item(), Item.of(text.encode()), Item()
            if nss.PK11SDR_Encrypt(ctypes.byref(key), ctypes.byref(plain), ctypes.byref(cipher), None) != 0:
                raise RuntimeError("NSS cannot encrypt")
            results.append(base64.b64encode(ctypes.string_at(cipher.octets, cipher.length)).decode())
        nss.PK11_FreeSlot(slot)
        return results
    finally:
        nss.NSS_Shutdown()


class Thunderbird:
    """Thunderbird without a window, which fetches mail when it starts. It connects through a relay of this script, so
    that the end of its session is seen."""

    def __init__(self, directory, user, password, leave_on_server):
        self.profile = directory / "profile"
        self.inbox = self.profile / "Mail/pop/Inbox"
        self.inbox.parent.mkdir(parents=True)
        self.relay = socket.create_server(("127.0.0.1", 0))
        name, secret = encrypted(self.profile, [user, password])
        origin = "mailbox://127.0.0.1"
        login = {"id": 1, "hostname": origin, "httpRealm": origin, "formSubmitURL": None, "usernameField": "",
                 "passwordField": "", "encryptedUsername": name, "encryptedPassword": secret, "encType": 1,
                 "guid": "{00000000-0000-4000-8000-000000000001}", "timeCreated": 1, "timeLastUsed": 1,
                 "timePasswordChanged": 1, "timesUsed": 1}
        (self.profile / "logins.json").write_text(json.dumps({"nextId": 2, "version": 3, "logins": [login]}))
        settings = {
            "mail.accountmanager.accounts": "account1,account2",
            "mail.accountmanager.defaultaccount": "account1",
            "mail.accountmanager.localfoldersserver": "server2",
            "mail.account.account1.server": "server1",
            "mail.account.account1.identities": "id1",
            "mail.account.account2.server": "server2",
            "mail.identity.id1.useremail": "you@example.org",
            "mail.identity.id1.valid": True,
            "mail.server.server1.type": "pop3",
            "mail.server.server1.hostname": "127.0.0.1",
            "mail.server.server1.port": self.relay.getsockname()[1],
            "mail.server.server1.userName": user,
            "mail.server.server1.directory": str(self.inbox.parent),
            "mail.server.server1.leave_on_server": leave_on_server,
            "mail.server.server1.login_at_startup": True,
            "mail.server.server1.download_on_biff": True,
            "mail.server.server1.authMethod": 3,
            "mail.server.server1.socketType": 0,
            "mail.server.server2.type": "none",
            "mail.server.server2.hostname": "Local Folders",
            "mail.server.server2.userName": "nobody",
            "mail.server.server2.directory": str(self.profile / "Mail/Local Folders"),
            "mail.provider.suppress_dialog_on_startup": True,
            "mail.rights.version": 1,
            "mail.shell.checkDefaultClient": False,
            "mailnews.start_page.enabled": False,
            "datareporting.policy.dataSubmissionPolicyBypassNotification": True,
        }
        lines = (f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in settings.items())
        (self.profile / "user.js").write_text("".join(lines))

    def fetch(self, port, patience, **options):
        """Starts Thunderbird, lets it have one session with the server at a port of 127.0.0.1, and ends it. Returns false
        if the session has not ended after so many seconds. The options are those of subprocess.Popen."""
        command = ["thunderbird", "--headless", "--no-remote", "--profile", str(self.profile)]
        with open(self.profile / "log", "ab") as log:
            program = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.profile, start_new_session=True,
                                       **options)
        try:
            self.relay.settimeout(120)
            try:
                client, _ = self.relay.accept()
            except TimeoutError as error:
                raise RuntimeError("Thunderbird does not fetch mail") from error
            has_ended = relay(client, port, patience)
            self.wait_until_written()
            return has_ended
        finally:
            os.killpg(program.pid, signal.SIGTERM)
            try:
                program.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(program.pid, signal.SIGKILL)
                program.wait()
            self.refuse_waiting()

    def refuse_waiting(self):
        """Closes the connections of the ended program that nothing has accepted."""
        self.relay.setblocking(False)
        try:
            while True:
                self.relay.accept()[0].close()
        except BlockingIOError:
            pass

    def wait_until_written(self):
        """Waits until nothing is written any more: after its session Thunderbird writes what it has fetched."""
        def state():
            files = (self.inbox, self.inbox.with_name("popstate.dat"))
            return [(file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.exists()]
        before, since = state(), time.monotonic()
        deadline = since + 60
        while time.monotonic() < min(since + 3, deadline):
            time.sleep(0.2)
            if state() != before:
                before, since = state(), time.monotonic()


def relay(client, port, patience):
    """Connects a client with the server at a port. Returns false if their session has not ended after so many seconds."""
    with client, socket.create_connection(("127.0.0.1", port)) as server:
        server.settimeout(None)
        pumps = [threading.Thread(target=pump, args=pair) for pair in ((server, client), (client, server))]
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for thread in pumps:
            thread.start()
        deadline = time.monotonic() + patience
        for thread in pumps:
            thread.join(max(0, deadline - time.monotonic()))
        has_ended = not any(thread.is_alive() for thread in pumps)
        if not has_ended:
            for end in (client, server):
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
            for thread in pumps:
                thread.join()
        return has_ended


def pump(source, target):
    """Passes on what comes until one side has closed, and also a reset."""
    try:
        while octets := source.recv(65536):
            target.sendall(octets)
        target.shutdown(socket.SHUT_WR)
    except ConnectionResetError:
        target.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        try:
            target.shutdown(socket.SHUT_RD)  # ends the other direction's wait; closing then sends the reset
        except OSError:
            pass
    except OSError:
        pass
