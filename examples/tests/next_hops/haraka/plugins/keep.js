// Keeps the messages of the user who has logged in, in `mail/new` of the folder of the
// configuration.

'use strict'

const fs = require('node:fs')

const folder = process.env.HARAKA

exports.hook_rcpt = (next, connection, [rcpt]) => {
    if (!connection.notes.auth_user) return next(DENY, 'Log in first')
    if (rcpt.user === 'gone') return next(DENY, '5.1.1 No such user')
    next(OK)
}

// With a login, mail would go to the Internet otherwise.
exports.hook_queue_outbound = (next, connection) => {
    const { uuid, message_stream } = connection.transaction
    const file = fs.createWriteStream(`${folder}/mail/tmp/${uuid}`)
    message_stream.pipe(file).on('close', () => {
        fs.renameSync(`${folder}/mail/tmp/${uuid}`, `${folder}/mail/new/${uuid}`)
        next(OK)
    })
}
