//! Answers the questions of guests for names.

use std::net::IpAddr;

use super::shell::Shell;
use crate::dns::forward::PassedOn;
use crate::dns::query::{DnsQuery, NoQuery, Transport};
use crate::dns::resolve::{Course, domain, resolve};
use crate::engine::names::Asker;
use crate::hypervisor::process::Processes;
use crate::model::clock::Now;
use crate::network::Network;
use crate::resolver::{Client, Directory, Verdict};
use crate::store::storage::Storage;

/// What the shell knows of names now.
pub(super) struct Knowledge<'a, N, D: Storage, P> {
    pub(super) shell: &'a mut Shell<N, D, P>,
    pub(super) now: Now,
}

impl<N: Network, D: Storage, P: Processes> Knowledge<'_, N, D, P> {
    fn decide(
        &mut self,
        network: &str,
        from: IpAddr,
        transport: Transport,
        message: &[u8],
    ) -> Verdict {
        let engine = &self.shell.engine;
        let Some(config) = engine.configured().find(|it| it.name == network) else {
            return Verdict::Ignore;
        };
        let Some(asker) = engine.asker(config, from) else { return Verdict::Ignore };
        let query = match DnsQuery::read(message) {
            Ok(query) => query,
            Err(NoQuery::Answer(answer)) => return Verdict::Answer(answer),
            Err(NoQuery::Ignore(reason)) => {
                log::debug!("network {network}: a message is ignored: {reason}");
                return Verdict::Ignore;
            }
        };
        match (resolve(engine, config, asker, &query), asker) {
            (Course::Answer(answer), _) if answer.len() <= query.longest(transport) => {
                Verdict::Answer(answer)
            }
            (Course::Answer(_), _) => Verdict::Answer(query.cut()),
            (Course::PassOn, Asker::Host) => Verdict::Ignore,
            (Course::PassOn, Asker::Guest { vm, .. }) => {
                let (vm, domain) = (vm.clone(), domain(config));
                self.shell.resolve(self.now);
                let resolvers = self.shell.resolvers.asked();
                Verdict::PassOn(vm, PassedOn { query, domain, resolvers })
            }
        }
    }
}

impl<N: Network, D: Storage, P: Processes> Directory for Knowledge<'_, N, D, P> {
    fn question(
        &mut self,
        network: &str,
        from: IpAddr,
        transport: Transport,
        message: &[u8],
    ) -> Verdict {
        let verdict = self.decide(network, from, transport, message);
        if !matches!(verdict, Verdict::Ignore) {
            if let Some(Client::Vm(vm)) = self.client(network, from) {
                self.shell.engine.asked_for_name(&vm, self.now);
            }
        }
        verdict
    }

    fn client(&self, network: &str, address: IpAddr) -> Option<Client> {
        let engine = &self.shell.engine;
        let config = engine.configured().find(|it| it.name == network)?;
        Some(match engine.asker(config, address)? {
            Asker::Guest { vm, .. } => Client::Vm(vm.clone()),
            Asker::Host => Client::Host,
        })
    }
}
