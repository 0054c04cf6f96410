//! What operators ask for: request, renew, revoke, import, remove.

use tokio::sync::oneshot;

use super::{
    checks::{self, Expected},
    entry::{Current, Entry},
    handle::{Answer, Order, Refusal},
    hosts,
    issuer::Failure,
    job::{self, Progress},
    maintain::Keeper,
    renewal::{self, Due},
    wanted,
};
use crate::tls::{
    pair::Issued,
    store::{Bundle, Meta, Record, Wish},
};

/// A failure as an operator reads it.
pub(super) fn failed(failure: Failure) -> Refusal {
    let hint = failure.hint.unwrap_or_else(|| match failure.class {
        "throttled" => "wait for the time that is said, then ask again".to_owned(),
        "rejected" => "what was shown before is still shown; the daemon's log says more".to_owned(),
        _ => "ask again later; `miwictl events` shows what happens meanwhile".to_owned(),
    });
    Refusal::Failed { code: failure.class, message: failure.message, hint }
}

fn usage(message: String) -> Refusal {
    let hint = "whole host names: shop.example.com, *.example.com".to_owned();
    Refusal::Failed { code: "config", message, hint }
}

fn conflict(message: impl Into<String>, hint: impl Into<String>) -> Refusal {
    Refusal::Conflict { message: message.into(), hint: hint.into() }
}

impl Keeper {
    pub(super) async fn request(&mut self, order: Order, progress: Progress, reply: oneshot::Sender<Answer>) {
        let wish = match self.understood(&order) {
            Ok(wish) => wish,
            Err(refusal) => return drop(reply.send(Err(refusal))),
        };
        if order.dry_run {
            let said = format!("{} would be asked for {} as `{}`", wish.issuer, wish.hosts.join(", "), wish.name);
            return drop(reply.send(Ok(said)));
        }
        let now = self.clock.now();
        let name = wish.name.clone();
        let entry = self.entries.entry(name.clone()).or_insert_with(|| Entry::new(Record::default(), None, now));
        let before = entry.record.wish.replace(wish);
        let is_there = entry.current.is_some() && renewal::due(now, &entry.situation()) != Due::Now;
        if before.is_some() && before != entry.record.wish {
            (entry.record.attempts, entry.record.next_attempt) = (0, None);
        }
        if is_there && !order.force {
            self.write_down(&name).await;
            return drop(reply.send(Ok("is there already, and not due yet".to_owned())));
        }
        self.ask_now(&name, progress, reply);
    }

    /// The wish, or why it cannot be granted; nobody outside is asked.
    fn understood(&self, order: &Order) -> Result<Wish, Refusal> {
        let hosts = hosts::judged(order.hosts.iter().map(String::as_str)).map_err(usage)?;
        // After the first that was named, which is what the operator remembers.
        let first =
            order.hosts.iter().map(|it| it.trim_end_matches('.').to_ascii_lowercase()).find(|it| hosts.contains(it));
        let name = order.name.clone().or(first).unwrap_or_else(|| hosts[0].clone());
        if let Some(known) = self.wish(&name)
            && known.origin == "configuration"
        {
            let hint = "change `[ssl] domains`, or choose another with --name";
            return Err(conflict(format!("the configuration already wants a certificate `{name}`"), hint));
        }
        let issuer = order.issuer.clone().unwrap_or_else(|| self.usual_issuer());
        if !self.issuers.contains_key(&issuer) {
            let hint = match issuer.as_str() {
                "cloudflare-origin" => "give `[cloudflare] api_token` or `api_token_file`, then `miwictl reload`",
                "acme" => "write a table `[acme]`, which accepts the authority's terms, then `miwictl reload`",
                _ => "one of cloudflare-origin, acme, local",
            };
            let message = format!("there is no issuer `{issuer}`");
            return Err(Refusal::Failed { code: "config", message, hint: hint.to_owned() });
        }
        let configured = self.config.as_ref().and_then(|it| it.cloudflare.origin_ca_validity_days);
        let days = order.days.or(configured).unwrap_or(wanted::DAYS);
        let days = (issuer != "acme").then_some(days);
        Ok(Wish { name, hosts, issuer, origin: "operator".to_owned(), days })
    }

    fn usual_issuer(&self) -> String {
        let understood = self.config.as_ref().map(|it| wanted::issuer(it, &it.ssl));
        match understood {
            Some(config::Issuer::CloudflareOrigin) => "cloudflare-origin".to_owned(),
            Some(config::Issuer::Acme) => "acme".to_owned(),
            _ => "local".to_owned(),
        }
    }

    pub(super) fn renew(&mut self, name: &str, force: bool, progress: Progress, reply: oneshot::Sender<Answer>) {
        let now = self.clock.now();
        let Some(entry) = self.entries.get(name) else {
            return drop(reply.send(Err(Refusal::NotFound(name.to_owned()))));
        };
        if !entry.is_renewed() {
            let hint = "import the new one: miwictl cert import --cert F --key F";
            return drop(reply.send(Err(conflict("it was imported, so only whoever made it can renew it", hint))));
        }
        if !force && let Due::At(at) = renewal::due(now, &entry.situation()) {
            let at = jiff::Timestamp::try_from(at).map(|it| it.to_string()).unwrap_or_default();
            return drop(reply.send(Ok(format!("is not due before {at}"))));
        }
        self.ask_now(name, progress, reply);
    }

    /// Now, whatever the back-off says, but never while the issuer takes nothing.
    fn ask_now(&mut self, name: &str, progress: Progress, reply: oneshot::Sender<Answer>) {
        let now = self.clock.now();
        let Some(entry) = self.entries.get(name) else { return };
        if let Some(until) = entry.record.blocked.filter(|it| *it > now) {
            let seconds = until.duration_since(now).unwrap_or_default().as_secs() + 1;
            let failure = Failure::new("throttled", format!("the issuer takes no requests for another {seconds} s"));
            return drop(reply.send(Err(failed(failure))));
        }
        if entry.is_busy || self.begin(name, progress) {
            self.wait_for(name, reply);
        } else {
            let failure = Failure::new("config", "there is nobody to ask: its issuer is not configured any more");
            drop(reply.send(Err(failed(failure))));
        }
    }

    /// A first request of an operator that failed leaves nothing behind but its key, in case the answer was only lost.
    pub(super) async fn drop_what_never_was(&mut self, name: &str) {
        let is_vain = self.entries.get(name).is_some_and(|it| {
            it.current.is_none() && !it.is_of_configuration() && !it.is_busy && it.record.last_error.is_some()
        });
        if is_vain {
            self.entries.remove(name);
            let (store, own) = (self.store.clone(), name.to_owned());
            let _ = job::blocking(move || store.forget(&own)).await;
        }
    }

    pub(super) async fn revoke(&mut self, name: &str, force: bool) -> Answer {
        let entry = self.entries.get(name).ok_or_else(|| Refusal::NotFound(name.to_owned()))?;
        let (Some(wish), Some(current)) = (entry.record.wish.clone(), &entry.current) else {
            return Err(conflict(
                "there is no certificate yet that could be revoked",
                "`miwictl cert list` shows how it stands",
            ));
        };
        if entry.is_busy {
            return Err(conflict("it is being requested right now", "ask again in a moment"));
        }
        if !force {
            let hint = format!("to go on: miwictl cert revoke {name} --force");
            return Err(conflict("it is in use, and revoking cannot be undone", hint));
        }
        let issuer = self.issuers.get(&wish.issuer).cloned();
        let issuer = issuer.ok_or_else(|| {
            conflict("whoever signed it cannot be asked to revoke it", "`miwictl cert remove` forgets it")
        })?;
        let id = current.bundle.meta.id.clone();
        let chain_pem = current.bundle.chain_pem.clone();
        issuer.revoke(&id, &chain_pem, self.clock.now()).await.map_err(failed)?;
        if wish.origin == "configuration" {
            if let Some(entry) = self.entries.get_mut(name) {
                entry.revoked(id);
                entry.current = None;
            }
            self.write_down(name).await;
            let (store, own) = (self.store.clone(), name.to_owned());
            let dropped = job::blocking(move || store.drop_versions(&own)).await;
            dropped.map_err(|error| {
                failed(Failure::new("storage", format!("it is revoked, but still on the disk: {error}")))
            })?;
        } else {
            self.erase(name).await.map_err(|error| failed(Failure::new("storage", error.to_string())))?;
        }
        // Nobody may go on with what was settled under it.
        self.tls.forget_sessions();
        self.events.emit("certificate.revoked", name, "revoked by an operator");
        Ok("revoked".to_owned())
    }

    pub(super) async fn import(&mut self, name: Option<String>, chain_pem: &str, key_pem: String) -> Answer {
        let now = self.clock.now();
        let mut expected = Expected {
            name: "",
            hosts: &[],
            key_pem: &key_pem,
            issued: Issued::Imported,
            days: None,
            outlives: None,
            roots: &[],
            revoked: &[],
            now,
        };
        let rejected = |it: checks::Rejection| {
            let message = format!("the certificate cannot be used: {}", it.message);
            failed(
                Failure::new("rejected", message)
                    .hint("give the server's own certificate first, and the key that belongs to it"),
            )
        };
        let first = checks::judge(chain_pem, &expected, &self.provider).map_err(rejected)?;
        let hosts: Vec<String> = first.pair.names.to_vec();
        let Some(name) = name.or_else(|| hosts.first().cloned()) else {
            return Err(failed(Failure::new("rejected", "the certificate is for no host at all")));
        };
        if self.entries.get(&name).is_some_and(|it| it.is_of_configuration() || it.is_renewed()) {
            let hint = "choose another with --name, or remove that one first";
            return Err(conflict(format!("there is a certificate `{name}` that is requested and renewed"), hint));
        }
        expected.name = &name;
        let judged = checks::judge(chain_pem, &expected, &self.provider).map_err(rejected)?;
        let (pair, chain_pem) = (judged.pair, judged.chain_pem);
        let meta = Meta { issuer: "imported".to_owned(), hosts: hosts.clone(), issued: Some(now), ..Meta::default() };
        let bundle = Bundle { key_pem, chain_pem, meta };
        let saved = job::save(&self.store, &name, &bundle, now).await;
        let version = saved.map_err(|error| failed(Failure::new("storage", format!("it cannot be kept: {error}"))))?;
        let issuer = "imported".to_owned();
        let wish = Wish { name: name.clone(), hosts, issuer, origin: "operator".to_owned(), days: None };
        let record = Record { wish: Some(wish), ..Record::default() };
        let current = Current { version: Some(version), bundle, pair };
        self.entries.insert(name.clone(), Entry::new(record, Some(current), now));
        self.write_down(&name).await;
        self.publish();
        Ok(format!("imported as `{name}`; whoever made it has to renew it"))
    }

    pub(super) async fn remove(&mut self, name: &str) -> Answer {
        let entry = self.entries.get(name).ok_or_else(|| Refusal::NotFound(name.to_owned()))?;
        if entry.is_of_configuration() {
            let hint = "take it out of `[ssl]` and reload";
            return Err(conflict("the configuration wants it", hint));
        }
        if entry.is_busy {
            return Err(conflict("it is being requested right now", "ask again in a moment"));
        }
        self.erase(name).await.map_err(|error| failed(Failure::new("storage", error.to_string())))?;
        self.publish();
        Ok("removed; it is neither shown nor renewed any more".to_owned())
    }
}
