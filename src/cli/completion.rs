//! What lets a shell complete verbs, flags and their values, made of the table of verbs.

use super::verbs::{Complete, Flag, SETTINGS, Settings, VERBS, Verb};
use crate::config::CLIENT_KEYS;

/// The shells, each with what makes its completion.
type Generator = (&'static str, fn() -> String);
const SHELLS: [Generator; 3] = [("bash", bash), ("zsh", zsh), ("fish", fish)];

/// The completion of a shell; `None`: there is none for a shell of that name.
pub(super) fn of(shell: &str) -> Option<String> {
    SHELLS.iter().find(|(name, _)| *name == shell).map(|(_, make)| make())
}

/// All flags of a verb, settings included.
fn flags(verb: &Verb) -> Vec<&'static Flag> {
    let of_client = |flag: &Flag| CLIENT_KEYS.iter().any(|key| key.flag == Some(flag.name));
    let taken = |flag: &&Flag| match verb.settings {
        Settings::None => false,
        Settings::Client => of_client(flag),
        Settings::All => true,
    };
    verb.flags().chain(SETTINGS.iter().filter(taken)).collect()
}

fn all_names() -> String {
    VERBS.iter().map(|verb| verb.name).collect::<Vec<_>>().join(" ")
}

fn bash() -> String {
    let mut out = String::from(
        "# bash completion for volnet(8); made by `volnet completion bash`

_volnet_vms() {
    volnet list --json 2>/dev/null | jq -r '.vms[].name' 2>/dev/null
}

_volnet() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} verb='' i choices
    # bash makes words of their own of = and what stands behind it.
    if [ \"$before\" = = ]; then
        before=${COMP_WORDS[COMP_CWORD - 2]}
    elif [ \"$word\" = = ]; then
        word=''
    fi
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
",
    );
    for verb in &VERBS {
        let name = verb.name;
        out.push_str(&format!("        {name}) verb='{name}' && break ;;\n"));
    }
    out.push_str("        esac\n    done\n    case $verb:$before in\n");
    let settings = SETTINGS.iter().map(|flag| ("", flag));
    let of_verbs = VERBS.iter().flat_map(|verb| verb.flags().map(|flag| (verb.name, flag)));
    let mut seen: Vec<(&str, String)> = Vec::new();
    // What holds for one verb stands before what holds for all: bash takes the first.
    let (mut of_one, mut of_all) = (String::new(), String::new());
    for (verb, flag) in settings.chain(of_verbs).filter(|(_, flag)| flag.value.is_some()) {
        let name = flag.name;
        let offer = offer(&flag.complete);
        match seen.iter().find(|(before, _)| *before == name) {
            None => {
                of_all.push_str(&format!("    *:--{name}) {offer} ;;\n"));
                seen.push((name, offer));
            }
            Some((_, first)) if *first == offer => {}
            Some(_) => of_one.push_str(&format!("    {verb}:--{name}) {offer} ;;\n")),
        }
    }
    out.push_str(&of_one);
    out.push_str(&of_all);
    for verb in &VERBS {
        let mut choices: Vec<String> =
            flags(verb).iter().map(|flag| format!("--{}", flag.name)).collect();
        choices.extend(verb.json.map(|_| "--json".into()));
        choices.push("--help".into());
        match verb.complete {
            Complete::Words(words) => choices.extend(words.iter().map(|word| word.to_string())),
            Complete::Vms => choices.push("$(_volnet_vms)".into()),
            Complete::Verbs => choices.push(all_names()),
            Complete::Nothing | Complete::Files => {}
        }
        out.push_str(&format!("    {}:*) choices=\"{}\" ;;\n", verb.name, choices.join(" ")));
    }
    let client = CLIENT_KEYS.iter().filter_map(|key| key.flag);
    let client: Vec<String> = client.map(|flag| format!("--{flag}")).collect();
    out.push_str(&format!(
        "    *) choices='{} --json --help --version {}' ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W \"$choices\" -- \"$word\")
}}

complete -F _volnet volnet
",
        all_names(),
        client.join(" ")
    ));
    out
}

/// What bash offers as the value of a flag.
fn offer(complete: &Complete) -> String {
    match complete {
        Complete::Words(words) => format!("choices='{}'", words.join(" ")),
        Complete::Vms => "choices=$(_volnet_vms)".into(),
        Complete::Files => "mapfile -t COMPREPLY < <(compgen -f -- \"$word\") && return".into(),
        Complete::Nothing | Complete::Verbs => "return".into(),
    }
}

/// A text between single quotes, without what zsh and fish read in it.
fn quoted(text: &str) -> String {
    text.replace('\'', "’").replace('[', "(").replace(']', ")").replace(':', ",")
}

fn zsh() -> String {
    let mut out = String::from(
        "#compdef volnet
# zsh completion for volnet(8); made by `volnet completion zsh`

_volnet_vms() {
    local -a vms
    vms=(${(f)\"$(volnet list --json 2>/dev/null | jq -r '.vms[].name' 2>/dev/null)\"})
    compadd -a vms
}

_volnet() {
    local -a verbs
    verbs=(
",
    );
    for verb in &VERBS {
        out.push_str(&format!("        '{}:{}'\n", verb.name, quoted(verb.brief)));
    }
    out.push_str(
        "    )
    local i verb
    for ((i = 2; i < CURRENT; i++)); do
        if [[ -n ${verbs[(r)${words[i]}:*]} ]]; then
            verb=${words[i]}
            break
        fi
    done
    case $verb in
",
    );
    for verb in &VERBS {
        out.push_str(&format!("    {})\n        _arguments \\\n", verb.name));
        for flag in flags(verb) {
            let value = match (flag.value, flag.complete) {
                (None, _) => String::new(),
                (Some(name), Complete::Words(words)) => {
                    format!(":{}:({})", quoted(name), words.join(" "))
                }
                (Some(name), Complete::Files) => format!(":{}:_files", quoted(name)),
                (Some(name), Complete::Vms) => format!(":{}:_volnet_vms", quoted(name)),
                (Some(name), Complete::Nothing | Complete::Verbs) => format!(":{}:", quoted(name)),
            };
            out.push_str(&format!(
                "            '*--{}[{}]{value}' \\\n",
                flag.name,
                quoted(flag.help)
            ));
        }
        if let Some(json) = verb.json {
            out.push_str(&format!("            '--json[{}]' \\\n", quoted(json)));
        }
        let words = match verb.complete {
            Complete::Vms => "_volnet_vms".into(),
            Complete::Words(words) => format!("({})", words.join(" ")),
            Complete::Verbs => format!("({})", all_names()),
            Complete::Nothing | Complete::Files => String::new(),
        };
        out.push_str(&format!("            '*:word:{words}'\n        ;;\n"));
    }
    out.push_str("    *) _describe verb verbs ;;\n    esac\n}\n\n_volnet \"$@\"\n");
    out
}

fn fish() -> String {
    let mut out = String::from(
        "# fish completion for volnet(8); made by `volnet completion fish`

function __volnet_vms
    volnet list --json 2>/dev/null | jq -r '.vms[].name' 2>/dev/null
end

complete -c volnet -f
",
    );
    for verb in &VERBS {
        out.push_str(&format!(
            "complete -c volnet -n __fish_use_subcommand -a {} -d '{}'\n",
            verb.name,
            quoted(verb.brief)
        ));
    }
    for verb in &VERBS {
        let here = format!("complete -c volnet -n '__fish_seen_subcommand_from {}'", verb.name);
        for flag in flags(verb) {
            let value = match (flag.value, flag.complete) {
                (None, _) => String::new(),
                (Some(_), Complete::Words(words)) => format!(" -x -a '{}'", words.join(" ")),
                (Some(_), Complete::Files) => " -r -F".into(),
                (Some(_), Complete::Vms) => " -x -a '(__volnet_vms)'".into(),
                (Some(_), Complete::Nothing | Complete::Verbs) => " -x".into(),
            };
            let help = quoted(flag.help);
            out.push_str(&format!("{here} -l {}{value} -d '{help}'\n", flag.name));
        }
        if let Some(json) = verb.json {
            out.push_str(&format!("{here} -l json -d '{}'\n", quoted(json)));
        }
        match verb.complete {
            Complete::Vms => out.push_str(&format!("{here} -a '(__volnet_vms)'\n")),
            Complete::Words(words) => out.push_str(&format!("{here} -a '{}'\n", words.join(" "))),
            Complete::Verbs => out.push_str(&format!("{here} -a '{}'\n", all_names())),
            Complete::Nothing | Complete::Files => {}
        }
    }
    out
}
