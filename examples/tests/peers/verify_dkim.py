#!/usr/bin/env python3
"""Verifies DKIM signatures with two implementations: dkimpy, and OpenDKIM's library.

    verify_dkim.py FOLDER

FOLDER has messages in *.eml, and `records` with the keys: on each line a name, a space and the text of its TXT record.
Prints {"FILE": {"dkimpy": [RESULT...], "opendkim": [RESULT...]}}: for each signature, from the first, "pass" or what is
wrong.
"""
import ctypes, ctypes.util, json, pathlib, sys

import dkim

# Of dkim.h.
OK, SETOPT, QUERYMETHOD, QUERYINFO, QUERY_FILE, PASSED, BODY_MATCHES = 0, 1, 6, 7, 1, 4, 0


def main(folder):
    records = dict(line.split(' ', 1) for line in (folder / 'records').read_text().splitlines())
    opendkim = OpenDkim(folder / 'records')
    verifiers = {'dkimpy': lambda message: dkimpy(message, records), 'opendkim': opendkim.verify}
    messages = {file.name: file.read_bytes() for file in sorted(folder.glob('*.eml'))}
    found = {name: {by: verify(message) for by, verify in verifiers.items()} for name, message in messages.items()}
    json.dump(found, sys.stdout)


def dkimpy(message, records):
    def record(name, timeout=5):
        return records.get(name.decode().rstrip('.'), '').encode()

    try:
        names = [name.lower() for name, _ in dkim.DKIM(message).headers]
    except dkim.DKIMException as error:
        return [str(error)]
    results = []
    for index in range(names.count(b'dkim-signature')):
        try:
            results.append('pass' if dkim.DKIM(message).verify(idx=index, dnsfunc=record) else 'no match')
        except dkim.DKIMException as error:
            results.append(str(error))
    return results


class OpenDkim:
    def __init__(self, records):
        self.opendkim = ctypes.CDLL(ctypes.util.find_library('opendkim'))
        for function in ('dkim_init', 'dkim_verify', 'dkim_sig_geterrorstr'):
            getattr(self.opendkim, function).restype = ctypes.c_void_p
        self.handle = ctypes.c_void_p(self.opendkim.dkim_init(None, None))
        self.set(QUERYMETHOD, ctypes.c_int(QUERY_FILE))
        self.set(QUERYINFO, ctypes.create_string_buffer(str(records).encode()))

    def set(self, option, value):
        size = ctypes.c_size_t(ctypes.sizeof(value))
        status = self.opendkim.dkim_options(self.handle, SETOPT, option, ctypes.byref(value), size)
        assert status == OK, status

    def verify(self, message):
        # A mail server hands the library fields and a body; of octets it wants the line in between.
        message += b'' if b'\r\n\r\n' in message else b'\r\n'
        status = ctypes.c_int()
        dkim = ctypes.c_void_p(self.opendkim.dkim_verify(self.handle, b'id', None, ctypes.byref(status)))
        assert dkim.value, status
        try:
            status = self.opendkim.dkim_chunk(dkim, message, ctypes.c_size_t(len(message)))
            status = status or self.opendkim.dkim_chunk(dkim, None, ctypes.c_size_t(0))
            status = status or self.opendkim.dkim_eom(dkim, None)
            signatures, count = ctypes.POINTER(ctypes.c_void_p)(), ctypes.c_int()
            listed = self.opendkim.dkim_getsiglist(dkim, ctypes.byref(signatures), ctypes.byref(count))
            if listed != OK:
                return [f'status {status}, no list of signatures: {listed}']
            return [self.result(ctypes.c_void_p(signatures[index]), dkim) for index in range(count.value)]
        finally:
            self.opendkim.dkim_free(dkim)

    def result(self, signature, dkim):
        # The library stops after the first signature that passes, unless it is asked for each.
        self.opendkim.dkim_sig_process(dkim, signature)
        passed = self.opendkim.dkim_sig_getflags(signature) & PASSED
        if passed and self.opendkim.dkim_sig_getbh(signature) == BODY_MATCHES:
            return 'pass'
        error = self.opendkim.dkim_sig_geterrorstr(self.opendkim.dkim_sig_geterror(signature))
        return ctypes.string_at(error).decode() if error else 'no match'


main(pathlib.Path(sys.argv[1]))
