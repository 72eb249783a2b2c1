//! What docker has and Skep doesn't yet: refused with a sentence, so that nobody takes silence for success.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Commands of docker by their noun; the empty noun holds those without one.
const VERBS: &[(&str, &str)] = &[
    (
        "",
        "secret config stack task volume container image build events exec images inspect kill logs ps pull push rm \
         start stop top wait cp restart explain",
    ),
    ("swarm", "ca unlock unlock-key"),
    ("network", "connect disconnect prune"),
    ("service", "rollback"),
];

/// Flags of docker's commands (swarm init, network create, service create and update, run, inspect) that Skep has none of.
const FLAGS: &str = "
    --autolock --cert-expiry --dispatcher-heartbeat --external-ca --force-new-cluster
    --max-snapshots --snapshot-interval --config-from
    --config-only --ingress --ipam-driver --ipam-opt --ipv4 --ipv6 --scope --cap-add
    --cap-drop --config --container-label --credential-spec --dns --dns-option
    --dns-search --env-file --generic-resource --group --health-cmd --health-interval
    --health-retries --health-start-interval --health-start-period --health-timeout
    --init --isolation --limit-cpu --limit-memory --limit-pids --log-driver --log-opt
    --max-concurrent --mount --no-resolve-image --oom-score-adj
    --read-only --reserve-cpu --reserve-memory --hostname --no-healthcheck --workdir -w --user -u
    --rollback-delay
    --rollback-failure-action --rollback-max-failure-ratio --rollback-monitor --rollback-order
    --rollback-parallelism --secret --sysctl --ulimit
    --update-delay --update-failure-action --update-max-failure-ratio --update-monitor
    --update-order --update-parallelism --with-registry-auth --attach -a --detach -d --detach-keys
    --tty -t --volume -v --memory -m --network-alias --ip --privileged --pull --restart
    --add-host --cpus --link --publish -p --pid --pretty
    --args --config-add --config-rm --container-label-add --container-label-rm --dns-add
    --dns-option-add --dns-option-rm --dns-rm --dns-search-add --dns-search-rm --env-add --env-rm
    --force --group-add --group-rm --host-add --host-rm --image --mount-add --mount-rm
    --network-add --network-rm --publish-add --publish-rm --rollback --secret-add --secret-rm
    --sysctl-add --sysctl-rm --ulimit-add --ulimit-rm
";

/// Refuses a verb that no command took; `noun` is empty at the top level.
pub(crate) fn refuse(noun: &str, words: &[String]) -> anyhow::Result<u8> {
    let verb = words.first().map_or("", String::as_str);
    let command = [noun, verb].iter().filter(|word| !word.is_empty()).copied().collect::<Vec<_>>().join(" ");
    let mut verbs = VERBS.iter().filter(|(of, _)| *of == noun).flat_map(|(_, verbs)| verbs.split(' '));
    if verbs.any(|known| known == verb) {
        let help = if noun.is_empty() { "--help".to_owned() } else { format!("{noun} --help") };
        anyhow::bail!("`skep {command}` isn't there yet: nothing was done. `skep {help}` lists what is.")
    }
    anyhow::bail!("skep: '{command}' is not a skep command: see `skep --help`")
}

/// A sentence for a flag that docker has and Skep doesn't; None for every other mistake.
pub(crate) fn explain(error: &clap::Error) -> Option<String> {
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let ContextValue::String(flag) = error.get(ContextKind::InvalidArg)? else { return None };
    let name = flag.split('=').next().unwrap_or(flag);
    FLAGS.split_whitespace().any(|known| known == name).then(|| {
        format!("{name} isn't there yet: nothing was done. Leave it out, or see --help for what is there.")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::Parser;

    fn explained(line: &str) -> Option<String> {
        explain(&Cli::try_parse_from(line.split(' ')).expect_err(line))
    }

    #[test]
    fn flags_docker_has_and_skep_does_not_are_named() {
        for line in [
            "skep service create --limit-cpu 1 host",
            "skep service create --update-delay=10s host",
            "skep run -v /a:/b --network backend host sh",
            "skep network create --ipv6 backend",
            "skep swarm init --autolock",
        ] {
            let sentence = explained(line).expect(line);
            assert!(sentence.contains("isn't there yet"), "{sentence}");
        }
        assert_eq!(
            explained("skep service create --constraintt x host"),
            None,
            "a slip is clap's to explain"
        );
    }

    #[test]
    fn verbs_docker_has_and_skep_does_not_are_named() {
        let said = |noun, verb: &str| refuse(noun, &[verb.to_owned()]).expect_err(verb).to_string();
        assert!(said("service", "rollback").starts_with("`skep service rollback` isn't there yet"));
        assert!(said("", "secret").starts_with("`skep secret` isn't there yet"));
        assert!(said("node", "dance").contains("'node dance' is not a skep command"));
        assert!(said("node", "secret").contains("is not a skep command"));
    }

    #[test]
    fn nothing_that_is_there_is_called_missing() {
        use clap::CommandFactory;
        let command = Cli::command();
        for (noun, verbs) in VERBS {
            let of = if noun.is_empty() { Some(&command) } else { command.find_subcommand(noun) };
            for verb in verbs.split(' ') {
                assert!(of.expect(noun).find_subcommand(verb).is_none(), "{noun} {verb}");
            }
        }
    }
}
