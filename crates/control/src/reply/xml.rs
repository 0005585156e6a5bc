//! XML: one complete `<flow>` element a line, without header or root.

use std::fmt::Write;

use flow::{Expectation, Flow, L4, Status, Tuple, Zone};

/// Appends the element of a flow. An external entry shows an empty reply part.
pub fn flow_element(out: &mut String, flow: &Flow, with_reply: bool) {
    out.push_str("<flow>");
    direction(out, "original", &flow.orig);
    if with_reply {
        direction(out, "reply", &flow.reply);
    } else {
        out.push_str(
            "<meta direction=\"reply\"><layer3 protonum=\"0\" protoname=\"unknown\"><src></src>\
             <dst></dst></layer3><layer4 protonum=\"0\" protoname=\"unknown\"></layer4></meta>",
        );
    }
    out.push_str("<meta direction=\"independent\">");
    if let Some(name) = flow.tcp_state().and_then(flow::TcpState::name) {
        let _ = write!(out, "<state>{name}</state>");
    }
    if let Some(mark) = flow.mark {
        let _ = write!(out, "<mark>{}</mark>", mark.0);
    }
    if flow.zone != Zone(0) {
        let _ = write!(out, "<zone>{}</zone>", flow.zone.0);
    }
    if let Some(id) = flow.id {
        let _ = write!(out, "<id>{id}</id>");
    }
    if flow.status.contains(Status::ASSURED) {
        out.push_str("<assured/>");
    }
    if !flow.status.contains(Status::SEEN_REPLY) {
        out.push_str("<unreplied/>");
    }
    out.push_str("</meta></flow>\n");
}

/// Appends the element of an expectation.
pub fn expectation_element(out: &mut String, e: &Expectation) {
    let (family, family_name) = layer3(&e.tuple);
    let parts = [
        ("expected", &e.tuple),
        ("mask", &e.mask),
        ("master", &e.master),
    ];
    let _ = write!(
        out,
        "<flow><layer3 protonum=\"{family}\" protoname=\"{family_name}\">"
    );
    for (name, tuple) in parts {
        let (src, dst) = (tuple.addrs.src(), tuple.addrs.dst());
        let _ = write!(out, "<{name}><src>{src}</src><dst>{dst}</dst></{name}>");
    }
    let _ = write!(
        out,
        "</layer3><layer4 protonum=\"{}\" protoname=\"{}\">",
        e.tuple.proto.0,
        e.tuple.proto.name().unwrap_or("unknown"),
    );
    for (name, tuple) in parts {
        if let L4::Ports { src, dst } = tuple.l4 {
            let ports = format!("<sport>{src}</sport><dport>{dst}</dport>");
            let _ = write!(out, "<{name}>{ports}</{name}>");
        }
    }
    out.push_str("</layer4><meta>");
    if let Some(helper) = e.helper {
        let _ = write!(out, "<helper-name>{helper}</helper-name>");
    }
    let _ = writeln!(out, "<class>{}</class></meta></flow>", e.class.unwrap_or(0));
}

/// Address family: its number and name.
fn layer3(tuple: &Tuple) -> (u8, &'static str) {
    if tuple.addrs.is_v4() {
        (2, "ipv4")
    } else {
        (10, "ipv6")
    }
}

fn direction(out: &mut String, name: &str, tuple: &Tuple) {
    let (family, family_name) = layer3(tuple);
    let _ = write!(
        out,
        "<meta direction=\"{name}\"><layer3 protonum=\"{family}\" protoname=\"{family_name}\">\
         <src>{}</src><dst>{}</dst></layer3><layer4 protonum=\"{}\" protoname=\"{}\">",
        tuple.addrs.src(),
        tuple.addrs.dst(),
        tuple.proto.0,
        tuple.proto.name().unwrap_or("unknown"),
    );
    if let L4::Ports { src, dst } = tuple.l4 {
        let _ = write!(out, "<sport>{src}</sport><dport>{dst}</dport>");
    }
    out.push_str("</layer4></meta>");
}

#[cfg(test)]
mod tests {
    use flow::{Addrs, Mark, Proto, ProtoInfo, TcpInfo, TcpState};

    use super::*;

    #[test]
    fn an_element_has_the_originals_form() {
        let addrs = Addrs::V4 {
            src: [192, 168, 1, 12].into(),
            dst: [203, 0, 113, 1].into(),
        };
        let mut flow = Flow::new(Tuple {
            addrs,
            proto: Proto::TCP,
            l4: L4::Ports { src: 999, dst: 22 },
        });
        flow.status = Status::SEEN_REPLY.with(Status::ASSURED);
        flow.mark = Some(Mark(0));
        flow.proto_info = Some(ProtoInfo::Tcp(TcpInfo {
            state: TcpState::ESTABLISHED,
            window_scale: None,
        }));
        let mut out = String::new();
        flow_element(&mut out, &flow, false);
        assert!(out.ends_with(
            "<meta direction=\"reply\"><layer3 protonum=\"0\" protoname=\"unknown\"><src></src>\
             <dst></dst></layer3><layer4 protonum=\"0\" protoname=\"unknown\"></layer4></meta>\
             <meta direction=\"independent\"><state>ESTABLISHED</state><mark>0</mark><assured/>\
             </meta></flow>\n"
        ));
        assert!(out.starts_with(
            "<flow><meta direction=\"original\"><layer3 protonum=\"2\" protoname=\"ipv4\">\
             <src>192.168.1.12</src><dst>203.0.113.1</dst></layer3><layer4 protonum=\"6\" \
             protoname=\"tcp\"><sport>999</sport><dport>22</dport></layer4></meta>"
        ));
    }
}
