//! The program `nft`: given a whole transaction on standard input, or asked what is there.

use super::RulesError;
use super::netns::Netns;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::process::{Command, Output, Stdio};

/// The kernel answers within the call; this only keeps a surprise from blocking for ever.
const ANSWER_LIMIT_SECONDS: i64 = 1;

/// Loads `rules` in one transaction: all of them or none.
pub(super) async fn load(netns: &Netns, rules: String) -> Result<(), RulesError> {
    let output = netns.run(move || run(&["-f", "-"], &rules)).await.map_err(RulesError::Run)?;
    match output.status.success() {
        true => Ok(()),
        false => Err(RulesError::Refused(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

/// What nft prints when given `args`, the last of them being `object`. None if it isn't there.
pub(super) async fn listing(
    netns: &Netns,
    args: Vec<&'static str>,
    object: &str,
) -> io::Result<Option<String>> {
    let object = object.to_owned();
    let ask = move || {
        // nft reads its arguments as one line of its language.
        let args: Vec<&str> = args.iter().copied().chain(object.split(' ')).collect();
        run(&args, "")
    };
    let Output { status, stdout, .. } = netns.run(ask).await?;
    Ok(status.success().then(|| String::from_utf8_lossy(&stdout).into_owned()))
}

/// A number that changes whenever anybody changes anything of nftables in `netns`. One short exchange with
/// the kernel, however large its rule set is.
pub(super) async fn generation(netns: &Netns) -> io::Result<u32> {
    netns.run(ask_generation).await
}

fn ask_generation() -> io::Result<u32> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let kernel = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkNetFilter)?;
    setsockopt(&kernel, sockopt::ReceiveTimeout, &TimeVal::seconds(ANSWER_LIMIT_SECONDS))?;
    send(kernel.as_raw_fd(), &GET_GENERATION, MsgFlags::empty())?;
    let mut answer = [0; 256];
    let len = recv(kernel.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    generation_in(&answer[..len]).ok_or_else(|| io::Error::other("the kernel gave nftables no generation"))
}

/// nlmsghdr {length, type, flags, sequence, sender} and nfgenmsg {family, version, resource id}
/// (linux/netlink.h, linux/netfilter/nfnetlink.h): subsystem nftables, NFT_MSG_GETGEN, NLM_F_REQUEST.
const GET_GENERATION: [u8; 20] = {
    let (length, kind, request) =
        (20u32.to_ne_bytes(), message_kind(NFT_MSG_GETGEN).to_ne_bytes(), 1u16.to_ne_bytes());
    let ([l0, l1, l2, l3], [k0, k1], [r0, r1]) = (length, kind, request);
    [l0, l1, l2, l3, k0, k1, r0, r1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
};

/// linux/netfilter/nf_tables.h
const NFT_MSG_NEWGEN: u16 = 15;
const NFT_MSG_GETGEN: u16 = 16;
const NFTA_GEN_ID: u16 = 1;

const fn message_kind(message: u16) -> u16 {
    const NFNL_SUBSYS_NFTABLES: u16 = 10;
    NFNL_SUBSYS_NFTABLES << 8 | message
}

/// The first attribute of a NFT_MSG_NEWGEN is its number, in network order.
fn generation_in(answer: &[u8]) -> Option<u32> {
    let half = |at: usize| Some(u16::from_ne_bytes(answer.get(at..at + 2)?.try_into().ok()?));
    let is_it = half(4)? == message_kind(NFT_MSG_NEWGEN) && half(22)? == NFTA_GEN_ID;
    is_it.then(|| Some(u32::from_be_bytes(answer.get(24..28)?.try_into().ok()?))).flatten()
}

fn run(args: &[&str], input: &str) -> io::Result<Output> {
    let mut nft = Command::new("nft")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = nft.stdin.take().expect("stdin is piped");
    // nft reads all of its input before it writes; if it has ended early, its status says why.
    match stdin.write_all(input.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
        _ => drop(stdin),
    }
    nft.wait_with_output()
}
