//! What becomes of messages and connections. A message on a connection that stands arrives, late where it was lost before; what is
//! under way when a connection goes is gone, and hosts send again what was not acknowledged when they have a new one.

use super::{
    check::Broken,
    hosts::{RING, Stage},
    purse,
    world::{Happening, World},
};
use crate::{dispatch::Event, flow::Millis};

impl World<'_> {
    /// How long the next message takes.
    pub(super) fn delay(&mut self) -> Millis {
        let network = &self.options.network;
        let random = &mut self.chance.network;
        let mut delay = random.between(network.delay_ms_min, network.delay_ms_max);
        while random.happens(network.loss_ppm) {
            delay += network.resend_ms;
        }
        delay
    }

    pub(super) fn begin_trouble(&mut self) {
        if self.options.network.partition_every_ms > 0 {
            self.queue.at(self.now + self.options.network.partition_every_ms, Happening::Cut);
        }
        if self.options.trouble.churn_ppm > 0 {
            self.queue.at(self.now, Happening::Churn);
        }
    }

    /// A host has a connection: it says what it has, and sends again what it has signed.
    pub(super) fn join(&mut self, host: u32) -> Result<(), Broken> {
        let machine = &mut self.hosts[host as usize];
        if machine.is_cut || machine.is_away || machine.is_gone {
            return Ok(());
        }
        machine.is_online = true;
        let cert = self.names.cert(machine.operator, machine.node);
        let (node, subnet, holds) = (machine.node, machine.subnet, machine.holds.clone());
        let offer = machine.offer(purse::prices(self.options));
        let operator = self.operators[machine.operator as usize].id;
        let holding = holds.iter().filter_map(|ticket| self.given.get(*ticket)).map(|given| given.id).collect();
        self.feed(Event::HostUp { node, operator, cert, offer, subnet, holding })?;
        for ticket in holds {
            let is_ready = |stage: Stage| matches!(stage, Stage::Signed(_) | Stage::Found { .. } | Stage::Failed);
            if self.given.get(ticket).is_some_and(|given| is_ready(given.stage)) {
                self.send(host, ticket);
            }
        }
        Ok(())
    }

    /// A host's connection goes, which the coordinator notices after a while. What was on its way is lost.
    fn disconnect(&mut self, host: u32, notice_ms: Millis) {
        let machine = &mut self.hosts[host as usize];
        machine.epoch += 1;
        if !std::mem::take(&mut machine.is_online) {
            return;
        }
        let epoch = machine.epoch;
        for ticket in machine.holds.clone() {
            if self.given.get(ticket).is_some_and(|given| given.stage == Stage::Sent) {
                self.remove(host, ticket);
            }
        }
        self.queue.at(self.now + notice_ms, Happening::Lost(host, epoch));
    }

    fn connect(&mut self, host: u32) {
        let machine = &mut self.hosts[host as usize];
        if machine.is_cut || machine.is_away || machine.is_gone {
            return;
        }
        machine.epoch += 1;
        let epoch = machine.epoch;
        let when = self.now + self.delay();
        self.queue.at(when, Happening::Join(host, epoch));
    }

    fn lose_work(&mut self, host: u32) {
        for ticket in self.hosts[host as usize].holds.clone() {
            self.remove(host, ticket);
        }
    }

    /// A host goes and forgets its work.
    pub(super) fn leave(&mut self, host: u32, away_ms: Millis, notice_ms: Millis) {
        if self.hosts[host as usize].is_away || self.hosts[host as usize].is_gone {
            return;
        }
        self.hosts[host as usize].is_away = true;
        self.lose_work(host);
        self.disconnect(host, notice_ms);
        self.queue.at(self.now + away_ms, Happening::Return(host));
    }

    pub(super) fn come_back(&mut self, host: u32) {
        self.hosts[host as usize].is_away = false;
        self.connect(host);
    }

    /// A host of somebody who was caught is switched off for good.
    pub(super) fn expel(&mut self, host: u32) {
        self.hosts[host as usize].is_gone = true;
        self.lose_work(host);
        self.disconnect(host, 1);
    }

    /// One host is taken away, so often that the share that is away stays as it is to be.
    pub(super) fn churn(&mut self) {
        let trouble = &self.options.trouble;
        let count = self.hosts.len() as u64;
        let every =
            u128::from(trouble.away_ms) * 1_000_000 / (u128::from(trouble.churn_ppm) * u128::from(count)).max(1);
        let every = Millis::try_from(every).unwrap_or(Millis::MAX).max(1);
        let host = u32::try_from(self.chance.network.below(count)).unwrap_or(0);
        // Who goes says so.
        self.leave(host, trouble.away_ms, 1);
        self.queue.at(self.now + every, Happening::Churn);
    }

    /// Cuts a part of the hosts off. One subnet is on one side of it.
    pub(super) fn cut(&mut self) {
        let network = &self.options.network;
        let ring = self.chance.network.happens(network.partition_ppm);
        for host in 0..u32::try_from(self.hosts.len()).unwrap_or(u32::MAX) {
            let alone = self.chance.network.happens(network.partition_ppm);
            if if self.hosts[host as usize].subnet == RING { ring } else { alone } {
                self.hosts[host as usize].is_cut = true;
                self.disconnect(host, network.notice_ms);
            }
        }
        self.queue.at(self.now + network.partition_ms, Happening::Heal);
    }

    pub(super) fn heal(&mut self) {
        for host in 0..u32::try_from(self.hosts.len()).unwrap_or(u32::MAX) {
            if std::mem::take(&mut self.hosts[host as usize].is_cut) {
                self.connect(host);
            }
        }
        self.queue.at(self.now + self.options.network.partition_every_ms, Happening::Cut);
    }
}
