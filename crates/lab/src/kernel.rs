//! The kernel table of a machine, field by field: flows that no traffic of the laboratory
//! can make are created, and what is there is read with all its attributes.

use anyhow::{Context, Result, bail};
use ctnetlink::{DumpFilter, Message, Request, TcpOptions, decode, messages};
use flow::Flow;
use sys::netlink::{Netlink, RECEIVE_BYTES};

use crate::node::Node;

/// Creates flows, as a program other than a replica does.
pub fn create(node: &Node, flows: &[Flow]) -> Result<()> {
    each(node, flows, |request, flow| {
        request.create(
            flow,
            TcpOptions {
                window_scale: false,
            },
        );
    })
}

/// Changes flows.
pub fn update(node: &Node, flows: &[Flow]) -> Result<()> {
    each(node, flows, |request, flow| {
        request.update(
            flow,
            TcpOptions {
                window_scale: false,
            },
        );
    })
}

/// Executes one kind of request for each of some flows.
pub fn each(node: &Node, flows: &[Flow], write: fn(Request<'_>, &Flow)) -> Result<()> {
    let flows = flows.to_vec();
    node.inside(move || {
        let socket = Netlink::open(false)?;
        let mut buffer = vec![0; RECEIVE_BYTES];
        for flow in &flows {
            let mut out = Vec::new();
            write(Request::new(&mut out, 1, true), flow);
            socket.send(&out)?;
            let answer = messages(socket.receive(&mut buffer)?).next();
            match decode(&answer.context("no answer")??)? {
                Message::Ack { error: 0 } => {}
                other => bail!("{flow}: {other:?}"),
            }
        }
        Ok(())
    })?
}

/// All flows of the table, both families, in the order of their keys.
pub fn dump(node: &Node) -> Result<Vec<Flow>> {
    let mut flows = node.inside(|| -> Result<Vec<Flow>> {
        let socket = Netlink::open(false)?;
        let mut out = Vec::new();
        Request::new(&mut out, 1, false).dump(DumpFilter::All);
        socket.send(&out)?;
        let mut buffer = vec![0; RECEIVE_BYTES];
        let mut flows = Vec::new();
        loop {
            for message in messages(socket.receive(&mut buffer)?) {
                match decode(&message?)? {
                    Message::Flow { flow, .. } => flows.push(flow),
                    Message::Done { error: 0, .. } => return Ok(flows),
                    other => bail!("{other:?}"),
                }
            }
        }
    })??;
    flows.sort_by_key(Flow::key);
    Ok(flows)
}
