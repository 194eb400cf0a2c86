//! Sockets do not exist, so no descriptor is one.

use super::errno::Errno;
use crate::sandbox::state::{Call, Fail};

pub(super) fn accept(call: &mut Call<'_>, fd: u32, _: u32, _: u32) -> Result<(), Fail> {
    refuse(call, fd)
}

pub(super) fn recv(call: &mut Call<'_>, fd: u32, _: u32, _: u32, _: u32, _: u32, _: u32) -> Result<(), Fail> {
    refuse(call, fd)
}

pub(super) fn send(call: &mut Call<'_>, fd: u32, _: u32, _: u32, _: u32, _: u32) -> Result<(), Fail> {
    refuse(call, fd)
}

pub(super) fn shutdown(call: &mut Call<'_>, fd: u32, _: u32) -> Result<(), Fail> {
    refuse(call, fd)
}

fn refuse(call: &Call<'_>, fd: u32) -> Result<(), Fail> {
    call.state.fds.get(fd)?;
    Err(Errno::NotSock.into())
}
