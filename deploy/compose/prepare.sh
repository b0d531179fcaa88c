#!/usr/bin/env bash
# Makes the secrets that compose.yaml reads, in secrets/ beside it. What is there already stays as it is.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

# Compose mounts these files as they are, and the users in the containers are not the one who made them. So the files
# are readable and the directory, which is not mounted, keeps everybody else on this machine out.
umask 022
mkdir -p secrets
chmod 0700 secrets

random() { # 43 characters, 256 bits
    head -c 32 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=\n'
}

make_secret() { # make_secret NAME VALUE
    if [ ! -e "secrets/$1" ]; then
        printf '%s\n' "$2" >"secrets/$1"
        chmod 0444 "secrets/$1"
        echo "made deploy/compose/secrets/$1"
    fi
}

make_secret postgres_password "$(random)"
make_secret database_url "postgresql://taximeter:$(cat secrets/postgres_password)@postgres:5432/taximeter"
make_secret sidecar_tokens "$(random)"
