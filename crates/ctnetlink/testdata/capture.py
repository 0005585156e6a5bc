#!/usr/bin/env python3
"""Captures what the kernel says of expectations and unusual flows: see README.md.

Run as root: unshare -n python3 capture.py >captured.tsv
"""
import os, socket, struct, subprocess, sys, threading, time

def sh(line):
    return subprocess.run(line, shell=True, check=True, capture_output=True, text=True).stdout

for line in """ip link set lo up
ip addr add 10.9.0.1/32 dev lo
ip addr add 10.9.0.2/32 dev lo
ip addr add 10.9.0.9/32 dev lo
ip addr add 10.9.0.99/32 dev lo
iptables -t raw -A OUTPUT -p tcp --dport 21 -j CT --helper ftp
iptables -t nat -A POSTROUTING -s 10.9.0.1 -d 10.9.0.2 -j SNAT --to 10.9.0.99
iptables -t raw -A OUTPUT -p udp --dport 5001 -j CT --zone-orig 7
iptables -t raw -A OUTPUT -p udp --dport 5002 -j CT --zone-reply 8
iptables -A OUTPUT -p udp --dport 5003 -m connlabel --set --label 3
iptables -A OUTPUT -p udp --dport 5003 -m connlabel --set --label 100
sysctl -q net.netfilter.nf_conntrack_acct=1 net.netfilter.nf_conntrack_timestamp=1
sysctl -q net.netfilter.nf_conntrack_events=1""".splitlines():
    sh(line)

nl = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
nl.bind((0, 0))
SOL_NETLINK, ADD, EXT_ACK, CAP_ACK = 270, 1, 11, 10
for group in (4, 5, 6):
    nl.setsockopt(SOL_NETLINK, ADD, group)
nl.setsockopt(SOL_NETLINK, EXT_ACK, 1)

said = subprocess.Popen(["conntrack", "-E", "expect"], stdout=subprocess.PIPE, text=True)
time.sleep(0.3)

def show(kind, data, text=""):
    print(kind, data.hex(), text, sep="\t")

def messages(data):
    at = 0
    while at < len(data):
        n = struct.unpack_from("=I", data, at)[0]
        yield data[at:at + n]
        at += (n + 3) & ~3

# One control connection through SNAT, PORT and PASV.
server = socket.create_server(("10.9.0.2", 21))
client = socket.create_connection(("10.9.0.2", 21), source_address=("10.9.0.1", 0))
peer, _ = server.accept()
# Over loopback the helper learns only from the first line where lines begin.
client.send(b"NOOP\r\n")
peer.recv(100)
peer.send(b"200 ok\r\n")
client.recv(100)
client.send(b"PORT 10,9,0,1,19,137\r\n")
peer.recv(100)
peer.send(b"227 Entering Passive Mode (10,9,0,2,20,7).\r\n")
client.recv(100)
data = socket.create_server(("10.9.0.2", 20 * 256 + 7))
socket.create_connection(("10.9.0.2", 20 * 256 + 7), source_address=("10.9.0.1", 0))
time.sleep(0.3)
nl.settimeout(0.3)
events = []
try:
    while True:
        events += list(messages(nl.recv(65536)))
except OSError:
    pass
sh("conntrack -F expect")
said.terminate()
for event, line in zip(events, said.stdout.read().splitlines()):
    show("expectation", event, line.strip())

# Flows of other kinds, as a dump shows them.
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
u.bind(("10.9.0.1", 4000))
for port in (5001, 5002, 5003):
    u.sendto(b"x", ("10.9.0.9", port))
lite = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 136)
lite.bind(("10.9.0.1", 4001))
lite.sendto(b"x", ("10.9.0.9", 5004))
gre = socket.socket(socket.AF_INET, socket.SOCK_RAW, 47)
gre.bind(("10.9.0.1", 0))
gre.sendto(bytes.fromhex("2001880b0004beef00000001") + b"abcd", ("10.9.0.9", 0))
icmp = socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)
icmp.bind(("10.9.0.1", 0))
icmp.sendto(bytes.fromhex("0800f7f500010009"), ("10.9.0.2", 0))
sh("conntrack -I -p sctp --orig-src 10.9.1.1 --orig-dst 10.9.1.2 --orig-port-src 1 --orig-port-dst 2 "
   "--state ESTABLISHED --orig-vtag 11 --reply-vtag 12 -t 300")
sh("conntrack -I -p 50 -s 10.9.1.1 -d 10.9.1.2 -t 300")

def ask(kind, flags, body=b""):
    nl.send(struct.pack("=IHHII", 20 + len(body), kind, flags | 1, 7, 0) + bytes([0, 0, 0, 0]) + body)
    out = []
    while True:
        for m in messages(nl.recv(65536)):
            if struct.unpack_from("=H", m, 4)[0] in (2, 3):
                return out + [m] if struct.unpack_from("=H", m, 4)[0] == 2 else out
            out.append(m)
        if not flags & 0x300:
            return out

lines = {}
for line in sh("conntrack -L -o id").splitlines():
    lines[int(line.rsplit("id=", 1)[1])] = " ".join(line.split())
for m in ask(0x101, 0x300):
    for at in range(20, len(m) - 7):
        if m[at:at + 4] == struct.pack("=HH", 8, 12):
            show("flow", m, lines.get(struct.unpack(">I", m[at + 4:at + 8])[0], ""))
for m in ask(0x104, 0x300):
    show("cpu", m)
for m in ask(0x105, 0):
    show("table", m)
# Refused with words: a timeout of one byte. Without: an unknown operation.
for m in ask(0x100, 0x605, bytes.fromhex("0500070001000000")):
    show("error", m)
for m in ask(0x1ff, 5):
    show("error", m)
