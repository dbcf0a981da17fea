// A next hop of Node's smtp-server: keeps the messages for the user `me`, who logs in with
// `secret`.
//
// Usage: NODE_PATH=.../node_modules node smtp_server.js FOLDER PORT
// The folder has cert.pem and key.pem. Messages go to `mail/new` in it.

'use strict'

const fs = require('node:fs')
const { SMTPServer } = require('smtp-server')

const [folder, port] = process.argv.slice(2)
let count = 0

new SMTPServer({
    name: 'smtp-server.test',
    cert: fs.readFileSync(`${folder}/cert.pem`),
    key: fs.readFileSync(`${folder}/key.pem`),
    hideDSN: false,
    hideENHANCEDSTATUSCODES: false,
    onAuth({ username, password }, session, done) {
        if (username === 'me' && password === 'secret') return done(null, { user: username })
        done(new Error('Wrong password'))
    },
    onRcptTo({ address }, session, done) {
        if (!address.startsWith('gone@')) return done()
        done(Object.assign(new Error('5.1.1 No such user'), { responseCode: 550 }))
    },
    onData(stream, session, done) {
        const name = `${++count}`
        const file = fs.createWriteStream(`${folder}/mail/tmp/${name}`)
        stream.pipe(file).on('close', () => {
            fs.renameSync(`${folder}/mail/tmp/${name}`, `${folder}/mail/new/${name}`)
            done(null, 'Kept')
        })
    },
}).listen(Number(port), '127.0.0.1')
