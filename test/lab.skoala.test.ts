import { testUpgrade } from './lab-upgrades.ts'

testUpgrade('skoala', 'repo')
