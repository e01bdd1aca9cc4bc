# Completions for bash: source this file, or put it into /usr/share/bash-completion/completions as nats-server.
_nats_server() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}
    case $before in
        -c|--config|-P|--pid|-l|--log|--tlscert|--tlskey|--tlscacert)
            mapfile -t COMPREPLY < <(compgen -f -- "$word")
            return ;;
        --ports_file_dir|-sd|--store_dir)
            mapfile -t COMPREPLY < <(compgen -d -- "$word")
            return ;;
        -sl|--signal)
            mapfile -t COMPREPLY < <(compgen -W "stop quit term reopen ldm reload" -- "$word")
            return ;;
        -a|--addr|--net|-p|--port|-n|--name|--server_name|--client_advertise|-m|--http_port|-ms|--https_port|--http_base_path|--profile|--log_size_limit|--max_traced_msg_len|-r|--remote_syslog|--log_level_override|--user|--pass|--auth|--routes|--cluster|--cluster_listen|--cluster_name|--cluster_advertise|--connect_retries)
            return ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "-a --addr --net -p --port -n --name --server_name -c --config -t -P --pid --ports_file_dir -sl --signal --client_advertise -m --http_port -ms --https_port --http_base_path --profile -l --log -T --logtime --logtime_utc -D --debug -V --trace -VV -DV -DVV --log_size_limit --max_traced_msg_len -s --syslog -r --remote_syslog --log_level_override -js --jetstream -sd --store_dir --user --pass --auth --tls --tlscert --tlskey --tlsverify --tlscacert --help_tls --routes --cluster --cluster_listen --cluster_name --cluster_advertise --no_advertise --connect_retries -h --help -v --version" -- "$word")
}
complete -F _nats_server nats-server
