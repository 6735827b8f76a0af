"""What a user of pools runs: ``kubectl buildpool``, from a kubeconfig to a build.

It knows the API server through the user's own kubectl, and builders through the user's own buildx,
so it needs little, and it can do what the user can. It must never import what only the operator
needs: it is installed alone, on laptops and in CI (docs/adr/0029).

What is decided and said are functions of their arguments; programs and files are at the rim.

    values      a cluster as kubectl knows it, and a connection to pools
    parsing     what the API server says, as values: the one door from its JSON
    certificates  a client's certificate, out of its Secret
    refusals    what an error of kubectl means, and its remedy
    ways        how a client reaches a pool
    nodes       a connection becomes commands of buildx, and what buildx says of it
    recipes     a connection as text for other tools: ``--print``
    state       a connection as a file, so that other commands know it
    reports     what is said of a connection that was made, and of versions
    overview    all pools, what is wrong first
    checks      questions in order, and a line for the answer to each
    builds      builds that a builder has a record of
    kubectl     the rim: asks the API server
    buildx      the rim: makes and removes builders
    folder      the rim: files of a connection, and who holds it
    holding     the rim: starts and ends the process that holds a connection
    relay       the rim: a port whose connections go through a port-forward
    forwarding  the rim: what that process does: port-forwards, new certificates
    connecting  ``connect`` and ``disconnect``, step by step
    live        pools as they are at a moment: slots, what runs, what waits
    reading     ``status``, ``explain``, ``rotate`` and ``warm``
    top         ``top``
    looking     ``builds`` and ``logs``
    cancelling  ``cancel``
    versions    ``version``
    doctor      ``doctor``
"""
